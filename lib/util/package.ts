/** The package itself: where it is, and what its manifest says. */
import { createRequire } from 'node:module';
import path from 'node:path';

const require = createRequire(import.meta.url);
const manifest = require.resolve('zerosend/package.json');
const { version, repository } = require(manifest) as { version: string; repository: { url: string } };

/** The directory of the package. */
export const PACKAGE_ROOT = path.dirname(manifest);

/** The version of the package, which its binaries must have too. */
export const VERSION: string = version;

/** The page of the project, under which its releases are. */
export const PROJECT_URL: string = repository.url.replace(/^git\+|\.git$/g, '');
