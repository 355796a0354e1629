/** The module `zerosend/fastify`: static files for Fastify, a drop-in for `@fastify/static` 10, and the front door. */
import fastifyPlugin from 'fastify-plugin';

import { frontDoor } from './frontdoor/fastify.js';
import * as errors from './static/errors.js';
import type * as List from './static/list.js';
import type { Root as StaticRoot, SendOptions as StaticSendOptions } from './static/options.js';
import { plugin } from './static/plugin.js';

export type { FastifyFrontDoorMount, FastifyFrontDoorOptions } from './frontdoor/fastify.js';
export type { FrontDoorLimits } from './frontdoor/options.js';
export type { FrontDoorStatistics } from './server/statistics.js';
export type {
  ExtendedInformation,
  ListDir,
  ListFile,
  ListOptions,
  ListOptionsHtmlFormat,
  ListOptionsJsonFormat,
  ListRender,
} from './static/list.js';
export type { FastifyStaticOptions, ReplyOptions, Root, SendOptions } from './static/options.js';
export type { ZerosendDecorator } from './static/plugin.js';
export type { Coding, SiteOptions } from './static/site-options.js';
export type { MethodStatistics, StaticStatistics, ZerosendStatistics } from './static/statistics.js';
export type { ResponseMethod } from './types/method.js';
export { errors, frontDoor };

const registered = fastifyPlugin(plugin, { fastify: '5.x', name: '@fastify/static' });

/** The plugin. For `require`, it has the properties `default` and `fastifyStatic` (itself), `errors` and `frontDoor`. */
const fastifyStatic = Object.assign(registered, { default: registered, fastifyStatic: registered, errors, frontDoor });

/** The types as exported by `@fastify/static`: `fastifyStatic.FastifyStaticOptions`, ... */
declare namespace fastifyStatic {
  export type ExtendedInformation = List.ExtendedInformation;
  export type ListDir = List.ListDir;
  export type ListFile = List.ListFile;
  export type ListRender = List.ListRender;
  export type ListOptions = List.ListOptions;
  export type ListOptionsJsonFormat = List.ListOptionsJsonFormat;
  export type ListOptionsHtmlFormat = List.ListOptionsHtmlFormat;
  export type SendOptions = StaticSendOptions;
  export type Root = StaticRoot;
  export type FastifyStaticOptions = import('./static/options.js').FastifyStaticOptions;
}

export { fastifyStatic, fastifyStatic as default, fastifyStatic as 'module.exports' };
