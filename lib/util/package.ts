/** The location and the manifest of the package. */
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(import.meta.url);
const manifest = require.resolve('zerosend/package.json');
const { version, repository } = require(manifest) as { version: string; repository: { url: string } };

/** The directory of the package. */
export const PACKAGE_ROOT = path.dirname(manifest);

/** The version of the package; its binaries must have the same version. */
export const VERSION: string = version;

/** The URL of the project; its releases are below it. */
export const PROJECT_URL: string = repository.url.replace(/^git\+|\.git$/g, '');
