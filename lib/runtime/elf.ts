/** What can be seen of a binary before it is loaded. The loader of the system is not so careful: a file that was cut off kills the process. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

/** `e_machine`, elf(5). */
const MACHINES: Record<string, number> = { x64: 62, arm64: 183 };
const NAMES: Record<number, string> = { 62: 'x64', 183: 'arm64' };
/** Bytes of the header of a 64-bit file. */
const HEADER = 64;

/** Why `file` cannot be a binary for `arch`; `undefined` when nothing speaks against it. Throws what open(2) fails with. */
export function elfFault(file: string, arch: string): string | undefined {
  const header = Buffer.alloc(HEADER);
  // A FIFO would have everybody wait who imports the package.
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  let read: number;
  let size: number;
  try {
    read = readSync(fd, header, 0, HEADER, 0);
    size = fstatSync(fd).size;
  } finally {
    closeSync(fd);
  }
  // 64 bits, little-endian.
  if (read < HEADER || header.readUInt32BE(0) !== 0x7f454c46 || header.readUInt16BE(4) !== 0x0201) {
    return 'it is no binary (damaged?)';
  }
  const machine = header.readUInt16LE(0x12);
  if (MACHINES[arch] !== undefined && machine !== MACHINES[arch]) {
    return `it is for ${NAMES[machine] ?? `another processor (${machine})`}`;
  }
  // The table of sections is what linkers write last.
  const end = Number(header.readBigUInt64LE(0x28)) + header.readUInt16LE(0x3a) * header.readUInt16LE(0x3c);
  return size < end ? `it is cut off (${size} of ${end} bytes)` : undefined;
}
