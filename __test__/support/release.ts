/** A release with the binary of this machine, a local host for it, and projects that have installed the package. */
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

/** The name of the binary for this machine. */
export const BINARY = binaryName(ownTarget());
/**
 * The environment for compiling the binary faster than for a release. The files of cargo are kept under `name`: concurrent builds must use
 * different names.
 */
export function quickly(name: string): NodeJS.ProcessEnv {
  return {
    CARGO_PROFILE_RELEASE_LTO: 'off',
    CARGO_PROFILE_RELEASE_OPT_LEVEL: '0',
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS: '16',
    CARGO_TARGET_DIR: path.join(PACKAGE_ROOT, 'target', name),
  };
}

/** The URL path of a file in a release. */
export const ON_HOST = `/v${VERSION}/${BINARY}`;

export interface TestRelease extends ReleaseFiles {
  /** The directory with its files. */
  directory: string;
  /** A project with the package, installed without scripts. */
  project: string;
}

/** Created once for a test file; call `remove` at the end. */
export function makeRelease(): TestRelease & { remove: () => void } {
  // Other users must be able to read it.
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

/** The output and exit code of a program. */
export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

export interface Consumer {
  /** The directory of the package. */
  root: string;
  /** The path of the binary. */
  binary: string;
  /** Runs `npx zerosend`. */
  zerosend(args: string[], env?: NodeJS.ProcessEnv): Promise<Ended>;
  /** Runs an ES module in the project. */
  run(program: string, env?: NodeJS.ProcessEnv, nodeArguments?: string[]): Promise<Ended>;
}

/** Creates a project in `directory` with a copy of the package and its dependencies. Returns the directory of the package. */
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

/** A project with the package and a copy of the binary, which tests may damage. `uid` is the user of its processes. */
export function consumer(t: ExecutionContext, release: TestRelease, uid?: number): Consumer {
  const directory = mkdtempSync(path.join(tmpdir(), 'zerosend-test-consumer-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  execFileSync('chmod', ['755', directory]);
  const root = install(directory, release);
  const start = (args: string[], env: NodeJS.ProcessEnv = {}) =>
    new Promise<Ended>((resolve) => {
      // The environment of the tests must not affect the result.
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
  /** The requested paths. */
  asked: string[];
}

/** Serves a release. `answer` may respond instead, and then returns true. */
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
