/** The child's side: commands over IPC, and the module under test. */
export { plugin, zerosend } from '../under-test.js';

type Handler = (argument: never) => unknown;

/** Handles commands. After `end` has closed everything, the process must exit by itself. */
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
  // The parent process has exited.
  process.on('disconnect', () => setTimeout(() => process.exit(), 20_000).unref());
}
