/** Checks a binary before it is loaded: ld.so does not check the length, and a truncated file ends the process with SIGBUS. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';

/** `e_machine`, elf(5). */
const MACHINES: Record<string, number> = { x64: 62, arm64: 183 };
const NAMES: Record<number, string> = { 62: 'x64', 183: 'arm64' };
/** Size of the header of a 64-bit file in bytes. */
const HEADER = 64;

/** Why `file` cannot be loaded by a process of the architecture `arch`; `undefined` if no problem was found. Throws if it cannot be opened. */
export function elfProblem(file: string, arch: string): string | undefined {
  const header = Buffer.alloc(HEADER);
  // O_NONBLOCK: opening a FIFO would block.
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
    return 'not an ELF binary; the file may be damaged';
  }
  const machine = header.readUInt16LE(0x12);
  if (MACHINES[arch] !== undefined && machine !== MACHINES[arch]) {
    return `built for ${NAMES[machine] ?? `another architecture (e_machine ${machine})`}`;
  }
  // Linkers place the section header table at the end of the file.
  const end = Number(header.readBigUInt64LE(0x28)) + header.readUInt16LE(0x3a) * header.readUInt16LE(0x3c);
  return size < end ? `truncated to ${size} of ${end} bytes` : undefined;
}
