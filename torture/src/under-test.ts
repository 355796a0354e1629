/** The module under test: this checkout, or another built one. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { PACKAGE_ROOT } from '../../lib/util/package.js';

const root = process.env.ZEROSEND_UNDER_TEST ?? PACKAGE_ROOT;
const load = (path: string): Promise<unknown> => import(pathToFileURL(join(root, path)).href);

export const zerosend = (await load('dist/index.js')) as typeof import('zerosend');
export const plugin = (await load('dist/lib/fastify.js')) as typeof import('zerosend/fastify');
