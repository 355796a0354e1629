// Preloaded with `--import`: sets `process.platform` to FORCED_PLATFORM, except for Node (the directory of temporary files) and the packages
// that run the process (esbuild has a binary for each platform).
const { platform } = process;
Object.defineProperty(process, 'platform', {
  get() {
    const [, , caller = ''] = (new Error().stack ?? '').split('\n');
    return /\/node_modules\/|\bnode:/.test(caller) ? platform : process.env.FORCED_PLATFORM;
  },
});
