/** The side of a child: commands over IPC, and what is under test. */
export { plugin, zerosend } from '../under-test.js';

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
