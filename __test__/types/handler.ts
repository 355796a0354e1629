/** The types of the handler. Checked by tsc, not executed. */
import { createServer } from 'node:http';

import express from 'express';
import { createStaticHandler, type StaticHandler, type StaticHandlerOptions, type StaticStatistics } from 'zerosend';

const handler: StaticHandler = createStaticHandler('/srv/www');
createServer(handler);
express().use('/assets', handler);
createStaticHandler(['/srv/a', new URL('file:///srv/b')], {
  allowedPath: (path, request) => path !== '' && request.method === 'GET',
  setHeaders: (response, path, stat) => void response.setHeader('x', `${path} ${stat.size}`),
  onFile: async () => {},
  fallback: 'index.html',
} satisfies StaticHandlerOptions);
handler.stats() satisfies StaticStatistics;
handler.close();
// @ts-expect-error an option of the plugin
createStaticHandler('/srv/www', { prefix: '/x' });
