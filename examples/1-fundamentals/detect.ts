/**
 * Lists the zero-copy mechanisms that this kernel supports, by calling each: the kernel version does not tell what a seccomp filter or
 * a container blocks.
 *
 *   npx tsx examples/1-fundamentals/detect.ts
 *
 * Look for: the unavailable mechanisms and their errno (ENOSYS: not implemented; EPERM: blocked), and whether your network card supports
 * scatter-gather.
 *
 *   kernel 6.18.44, pages of 4096 bytes, pipes of 65536 to 1048576
 *   yes sendfile                    files to sockets, from 64 KiB up
 *   yes splice                      relays, uploads into files, and the method 'splice'
 *   yes tee                         mirrors and splitters
 *   ...
 *   eth0: scatter-gather yes, checksums yes
 *   ifb0: scatter-gather yes, checksums yes
 *   ifb1: scatter-gather yes, checksums yes
 *   lo: scatter-gather yes, checksums yes
 */
import { probe } from 'zerosend';

const { kernel, pageSize, pipes, mechanisms, interfaces } = await probe();
console.log(`kernel ${kernel}, pages of ${pageSize} bytes, pipes of ${pipes.defaultSize} to ${pipes.maxSize}`);
for (const { name, available, syscall, code, purpose } of mechanisms) {
  console.log(`${available ? 'yes' : 'no '} ${name.padEnd(27)} ${available ? purpose : `${syscall}: ${code}`}`);
}
const format = (value: boolean | undefined) => (value === undefined ? 'unknown' : value ? 'yes' : 'no');
for (const { name, scatterGather, transmitChecksum } of interfaces) {
  console.log(`${name}: scatter-gather ${format(scatterGather)}, checksums ${format(transmitChecksum)}`);
}
