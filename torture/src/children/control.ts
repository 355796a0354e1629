/** The side of a child: commands over IPC, and what is under test. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { PACKAGE_ROOT } from '../../../lib/package.js';

/** Another built checkout to be tested instead of this one. */
const root = process.env.ZEROSEND_UNDER_TEST ?? PACKAGE_ROOT;
const load = (path: string): Promise<unknown> => import(pathToFileURL(join(root, path)).href);

export const zerosend = (await load('dist/index.js')) as typeof import('zerosend');
export const plugin = (await load('dist/lib/fastify.js')) as typeof import('zerosend/fastify');

type Handler = (argument: never) => unknown;

/** Answers commands. `end` closes, after which the process is to end by itself. */
export function control(handlers: Record<string, Handler>): void {
  process.on('message', ({ id, command, argument }: { id: number; command: string; argument: never }) => {
    void (async () => {
      try {
        if (command === 'collect') {
          (globalThis as { gc?: () => void }).gc?.();
          process.send?.({ id });
          return;
        }
        const handler = handlers[command];
        if (handler === undefined) throw new Error(`unknown command '${command}'`);
        process.send?.({ id, result: await handler(argument) });
        if (command === 'end') process.disconnect();
      } catch (error) {
        process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
      }
    })();
  });
  // The orchestrator is gone.
  process.on('disconnect', () => setTimeout(() => process.exit(), 20_000).unref());
}
