/** Between files and pipes: the transfer engine, with the end of a `Pipe` that fits. */
import type { TransferResult } from '../runtime/deliver.js';
import type { FileSource } from '../util/options.js';
import { Pipe } from './pipe.js';
import { type ReceiveFileOptions, type ReceiveSource, receiveFile } from './receive-file.js';
import { type SendFileOptions, type SendFileResult, sendFile } from './send-file.js';

/** {@link receiveFile}, also from a {@link Pipe}: what comes from a socket or pipe, into a file, by splice(2). */
export function pipeToFile(
  source: ReceiveSource | Pipe,
  target: FileSource,
  options: ReceiveFileOptions = {},
): Promise<TransferResult> {
  return receiveFile(source instanceof Pipe ? source.readFd : source, target, options);
}

/** {@link sendFile} into a pipe: its pages, by splice(2). The pipe stays open. */
export function fileToPipe(
  source: FileSource,
  target: Pipe | number,
  options: SendFileOptions = {},
): Promise<SendFileResult> {
  return sendFile(target instanceof Pipe ? target.writeFd : target, source, options);
}
