/** `pipeToFile` and `fileToPipe`: {@link receiveFile} and {@link sendFile} with the read or write end of a `Pipe`. */
import type { TransferResult } from '../runtime/delivery-options.js';
import type { FileSource } from '../util/options.js';
import { Pipe } from './pipe.js';
import { type ReceiveFileOptions, type ReceiveSource, receiveFile } from './receive-file.js';
import { type SendFileOptions, type SendFileResult, sendFile } from './send-file.js';

/** Receives from a socket or {@link Pipe} into a file, by splice(2). Otherwise as {@link receiveFile}. */
export function pipeToFile(
  source: ReceiveSource | Pipe,
  target: FileSource,
  options: ReceiveFileOptions = {},
): Promise<TransferResult> {
  return receiveFile(source instanceof Pipe ? source.readFd : source, target, options);
}

/** Sends a file into a pipe. Otherwise as {@link sendFile}. The pipe stays open. */
export function fileToPipe(
  source: FileSource,
  target: Pipe | number,
  options: SendFileOptions = {},
): Promise<SendFileResult> {
  return sendFile(target instanceof Pipe ? target.writeFd : target, source, options);
}
