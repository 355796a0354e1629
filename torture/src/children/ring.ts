/** One side of a ring. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { SharedRing, ZerosendError } from 'zerosend';

import { Random } from '../random.js';
import { make, verify } from '../records.js';
import { control, zerosend } from './control.js';

/** The head of a message: writer, number, and whether it is the last. */
const HEAD = 12;

let ring: SharedRing | undefined;
let stopped = false;
let working: Promise<unknown> = Promise.resolve();

/** What the reader has received. */
const seen = { writer: 0, next: 0, messages: 0, ends: 0, deaths: 0, faults: [] as string[] };

const open = async (name: string): Promise<SharedRing> => {
  ring ??= await zerosend.SharedRing.open(name);
  return ring;
};

async function write({ name, writer, seed }: { name: string; writer: number; seed: number }): Promise<void> {
  const to = await open(name);
  const random = new Random(seed);
  for (let number = 0; !stopped; number++) {
    const length = random.pick([0, 1, 16, 100, 1000, 5000, random.int(0, 20_000)]);
    const head = Buffer.alloc(HEAD);
    head.writeUInt32LE(writer, 0);
    head.writeUInt32LE(number, 4);
    const message = Buffer.concat([head, make(writer, 1, length)]);
    while (!(await passed(() => to.write(message) || to.drained()))) await sleep(20);
    if (random.chance(0.002)) await sleep(random.int(0, 20));
  }
}

/** False when `write` failed because the reader died. Its successor gets the bytes written before. */
async function passed(write: () => true | Promise<void>): Promise<boolean> {
  let draining: true | Promise<void>;
  try {
    draining = write();
  } catch (error) {
    if ((error as ZerosendError).code === 'ERR_ZEROSEND_PEER_DIED') return false;
    throw error;
  }
  try {
    await draining;
  } catch (error) {
    if ((error as ZerosendError).code !== 'ERR_ZEROSEND_PEER_DIED') throw error;
  }
  return true;
}

async function read(name: string): Promise<void> {
  const from = await open(name);
  let first = true;
  while (!stopped) {
    try {
      while (!stopped && (await from.readable())) {
        for (let message = from.read(); message !== null; message = from.read()) {
          check(message, first);
          first = false;
        }
      }
      return;
    } catch (error) {
      const { code } = error as ZerosendError;
      if (code === 'ERR_ZEROSEND_CLOSED') return;
      if (code !== 'ERR_ZEROSEND_PEER_DIED') seen.faults.push(`the reader failed: ${(error as Error).message}`);
      seen.deaths += 1;
      await sleep(5);
    }
  }
}

function check(message: Buffer, first: boolean): void {
  const [writer, number] = [message.readUInt32LE(0), message.readUInt32LE(4)];
  if (first) Object.assign(seen, { writer, next: number });
  else if (writer !== seen.writer) {
    if (number !== 0) seen.faults.push(`writer ${writer} begins with message ${number}`);
    Object.assign(seen, { writer, next: number });
  }
  if (number !== seen.next) seen.faults.push(`message ${number} instead of ${seen.next} of writer ${writer}`);
  const { bad } = verify(message.subarray(HEAD), writer);
  if (bad !== undefined) seen.faults.push(`wrong bytes in message ${number} at ${bad.offset}: ${bad.got}`);
  seen.next = number + 1;
  seen.messages += 1;
}

control({
  create: async (name: string) => {
    ring = await zerosend.SharedRing.create(name, { capacity: 65_536 });
  },
  write: (options: { name: string; writer: number; seed: number }) => {
    working = write(options);
  },
  read: (name: string) => {
    working = read(name);
  },
  unlink: (name: string) => zerosend.SharedRing.unlink(name),
  seen: () => ({ ...seen, faults: seen.faults.splice(0) }),
  end: async () => {
    stopped = true;
    await Promise.race([working, sleep(1000)]);
    ring?.close();
  },
});
