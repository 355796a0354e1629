/** A release made of this machine's binary, a host that stands in for that of the project, and consumers that have installed the package. */
import { execFile, execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import type { ExecutionContext } from 'ava';

import { binaryName, ownTarget } from '../../lib/runtime/binary.js';
import { PACKAGE_ROOT, VERSION } from '../../lib/util/package.js';
import { assemble, type ReleaseFiles } from '../../scripts/release/assemble.js';

/** The name of this machine's binary. */
export const BINARY = binaryName(ownTarget());
/**
 * To compile the binary not as it is released, but of the same sources and in a fraction of the time. What cargo makes is kept under `name`:
 * two that compile at once must not take each other's.
 */
export function quickly(name: string): NodeJS.ProcessEnv {
  return {
    CARGO_PROFILE_RELEASE_LTO: 'off',
    CARGO_PROFILE_RELEASE_OPT_LEVEL: '0',
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '16',
    CARGO_TARGET_DIR: path.join(PACKAGE_ROOT, 'target', name),
  };
}

/** Where a release has it. */
export const ON_HOST = `/v${VERSION}/${BINARY}`;

export interface TestRelease extends ReleaseFiles {
  /** Where its files are. */
  directory: string;
  /** A project into which the package was installed without scripts. */
  project: string;
}

/** Made once for a file of tests; `remove` it after them. */
export function makeRelease(): TestRelease & { remove: () => void } {
  // Others than root are to read it too.
  const base = mkdtempSync(path.join(tmpdir(), 'zerosend-test-release-'));
  execFileSync('chmod', ['755', base]);
  const [directory, project] = [path.join(base, 'release'), path.join(base, 'project')];
  mkdirSync(directory);
  mkdirSync(project);
  cpSync(path.join(PACKAGE_ROOT, BINARY), path.join(directory, BINARY));
  const files = assemble(directory);
  writeFileSync(path.join(project, 'package.json'), '{ "name": "project", "private": true, "type": "module" }\n');
  const args = ['install', '--ignore-scripts', '--no-audit', '--prefer-offline', '--loglevel=error', files.tarball];
  execFileSync('npm', args, { cwd: project, stdio: ['ignore', 'ignore', 'inherit'] });
  return { ...files, directory, project, remove: () => rmSync(base, { recursive: true, force: true }) };
}

/** What a program said, and how it ended. */
export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

export interface Consumer {
  /** The package in it. */
  root: string;
  /** Its binary. */
  binary: string;
  /** `npx zerosend`. */
  zerosend(args: string[], env?: NodeJS.ProcessEnv): Promise<Ended>;
  /** Runs an ES module in it. */
  run(program: string, env?: NodeJS.ProcessEnv, nodeArguments?: string[]): Promise<Ended>;
}

/** A project of its own in `directory`, with a copy of the package and what that depends on. Gives where the package is. */
export function install(directory: string, release: TestRelease): string {
  const modules = path.join(release.project, 'node_modules');
  mkdirSync(path.join(directory, 'node_modules'));
  for (const name of readdirSync(modules)) {
    if (name !== 'zerosend') symlinkSync(path.join(modules, name), path.join(directory, 'node_modules', name));
  }
  const root = path.join(directory, 'node_modules/zerosend');
  cpSync(path.join(modules, 'zerosend'), root, { recursive: true });
  return root;
}

/** A project of its own with the package, whose binary is a copy that may be damaged. `uid`: whose processes run in it. */
export function consumer(t: ExecutionContext, release: TestRelease, uid?: number): Consumer {
  const directory = mkdtempSync(path.join(tmpdir(), 'zerosend-test-consumer-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  execFileSync('chmod', ['755', directory]);
  const root = install(directory, release);
  const start = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    new Promise<Ended>((resolve) => {
      // Nothing of the environment of the tests may decide.
      const { PATH, HOME } = process.env;
      const options = { cwd: directory, env: { PATH, HOME, ...env }, ...(uid === undefined ? {} : { uid, gid: uid }) };
      execFile(process.execPath, args, options, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, stdout, stderr });
      });
    });
  return {
    root,
    binary: path.join(root, BINARY),
    zerosend: (args, env) => start([path.join(root, 'dist/lib/cli/main.js'), ...args], env),
    run: (program, env, nodeArguments = []) => start([...nodeArguments, '--input-type=module', '--eval', program], env),
  };
}

export interface Host {
  url: string;
  /** Paths that were asked for. */
  asked: string[];
}

/** Serves the release as its host does; `answer` may answer instead, when it gives true. */
export async function host(
  t: ExecutionContext,
  release: TestRelease,
  answer?: (request: IncomingMessage, response: ServerResponse, count: number) => boolean,
): Promise<Host> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const { url = '' } = request;
    asked.push(url);
    if (answer?.(request, response, asked.length)) return;
    const [, version, name = ''] = url.split('/');
    if (version !== `v${VERSION}` || !readdirSync(release.directory).includes(name)) {
      response.writeHead(404).end('not found');
      return;
    }
    response.end(readFileSync(path.join(release.directory, name)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}
