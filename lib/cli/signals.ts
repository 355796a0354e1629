/** Handling of SIGHUP. */

/** Calls `reopen` at SIGHUP. A file that cannot be reopened is reported and stays in use. */
export function onHangUp(reopen: () => Promise<void>): void {
  process.on('SIGHUP', () => {
    reopen().then(
      () => console.error('files reopened'),
      (error: Error) => console.error(`cannot reopen a file, which stays in use: ${error.message}`),
    );
  });
}
