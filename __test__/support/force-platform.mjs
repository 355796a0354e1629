// Preloaded (`--import`) into processes that are to believe they run on the platform FORCED_PLATFORM. Node itself (where
// temporary files go) and the packages that run them (esbuild has a binary for each platform) are told the truth.
const { platform } = process;
Object.defineProperty(process, 'platform', {
  get() {
    const [, , caller = ''] = (new Error().stack ?? '').split('\n');
    return /\/node_modules\/|\bnode:/.test(caller) ? platform : process.env.FORCED_PLATFORM;
  },
});
