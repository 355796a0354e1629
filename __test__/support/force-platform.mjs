// Preloaded (`--import`) into processes that are to believe they run on the platform FORCED_PLATFORM. The packages that run
// them (esbuild, for one, has a binary for each platform) are told the truth.
const { platform } = process;
Object.defineProperty(process, 'platform', {
  get() {
    const [, , caller = ''] = (new Error().stack ?? '').split('\n');
    return caller.includes('/node_modules/') ? platform : process.env.FORCED_PLATFORM;
  },
});
