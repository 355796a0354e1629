/** What commands do at SIGHUP. */

/** Has SIGHUP reopen files by their names. One that cannot be opened is reported, and stays as it was. */
export function onHangUp(reopen: () => Promise<void>): void {
  process.on('SIGHUP', () => {
    reopen().then(
      () => console.error('files reopened'),
      (error: Error) => console.error(`a file was not reopened and stays in use: ${error.message}`),
    );
  });
}
