#!/usr/bin/env node
// Sets up whatever is missing to run upgc, and does nothing when nothing is.
//
//   node native/setup.mjs          system tools, npm packages, the native addon, dist/
//   node native/setup.mjs --addon  the native addon only; installs nothing (npm's `install` script in a package)
//   node native/setup.mjs --dist   npm packages and dist/ only
//
// npm packages and dist/ are a clone's business: a package that npm installed has both. This file runs before
// node_modules exists, so it imports Node's own modules only.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const isClone = existsSync(at('tsconfig.json')) && existsSync(at('package-lock.json'));
const isMac = process.platform === 'darwin';

const oldestNode = 20;
const oldestCmake = [3, 15];
/** What the CPU device asks of clang; it looks for the same names (native/cpu/clang.cc). */
const oldestClang = { clang: 16, apple: 15 };
const clangVersions = [21, 20, 19, 18, 17, 16];
const clangNames = ['clang', ...clangVersions.map((version) => `clang-${version}`)];

/** A failure that the user can mend: the message is all they need to see. */
class SetupError extends Error {}

const mode = process.argv[2] ?? '--all';
// npm runs this script as `install`: for a package that it has just unpacked, and for a clone on every `npm ci`.
const underNpmInstall = process.env.npm_lifecycle_event === 'install';

try {
  checkNode();
  if (mode === '--all') {
    requireTools();
    if (isClone) installPackages();
    buildAddon();
    if (isClone) buildDist();
  } else if (mode === '--addon') {
    if (!(underNpmInstall && isClone)) {
      const missing = missingTools();
      if (missing.length > 0) throw new SetupError(howToInstall(missing));
      buildAddon();
    }
  } else if (mode === '--dist') {
    if (isClone) {
      installPackages();
      buildDist();
    }
  } else {
    throw new SetupError(`unknown option ${mode}: expected --addon, --dist or nothing`);
  }
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  say(error.message);
  // The package compiles models without its addon, and a failing `npm install` would take away the script that can
  // mend it. Whoever needs the addon is told how to build it when it is loaded.
  if (!underNpmInstall) process.exitCode = 1;
}

// ---- 1. Node ----------------------------------------------------------------------------------------------------

function checkNode() {
  if (Number.parseInt(process.versions.node, 10) < oldestNode) {
    throw new SetupError(`Node ${oldestNode} or newer is needed; this is Node ${process.versions.node}`);
  }
}

// ---- 2. System tools --------------------------------------------------------------------------------------------

/** Names from the list c++, make, cmake, clang. */
function missingTools() {
  // On a Mac without the command line tools, /usr/bin/clang exists and only opens a dialog.
  const tools = !isMac || run('xcode-select', ['-p']).ok;
  const missing = [];
  if (!tools || !(onPath('g++') ?? onPath('clang++'))) missing.push('c++');
  if (!tools || !(onPath('make') ?? onPath('ninja'))) missing.push('make');
  if (!hasCmake()) missing.push('cmake');
  if (!tools || !hasClang()) missing.push('clang');
  return missing;
}

function hasCmake() {
  const version = /cmake version (\d+)\.(\d+)/.exec(run('cmake', ['--version']).output);
  if (!version) return false;
  const [major, minor] = [Number(version[1]), Number(version[2])];
  return major > oldestCmake[0] || (major === oldestCmake[0] && minor >= oldestCmake[1]);
}

function hasClang() {
  return clangNames.some((name) => {
    const version = /(Apple )?clang version (\d+)/.exec(run(name, ['--version']).output);
    return version !== null && Number(version[2]) >= (version[1] ? oldestClang.apple : oldestClang.clang);
  });
}

function requireTools() {
  const missing = missingTools();
  if (missing.length === 0) return;
  if (isMac) installWithBrew(missing);
  else installWithApt(missing);
  const still = missingTools();
  if (still.length > 0) throw new SetupError(howToInstall(still));
}

function installWithBrew(missing) {
  if (!missing.includes('cmake') || !onPath('brew')) return;
  say('installing cmake with Homebrew');
  run('brew', ['install', 'cmake'], { orFail: 'brew install cmake failed' });
}

function installWithApt(missing) {
  const prefix = rootPrefix();
  if (!onPath('apt-get') || !prefix) return;
  const apt = (...args) => {
    const [command, ...rest] = [
      ...prefix,
      'env',
      'DEBIAN_FRONTEND=noninteractive',
      'apt-get',
      '-o',
      'DPkg::Lock::Timeout=120',
      ...args,
    ];
    run(command, rest, { orFail: `apt-get ${args[0]} failed` });
  };
  say('refreshing the list of system packages');
  apt('update');
  const packages = aptPackages(missing);
  if (!packages) return;
  say(`installing ${packages.join(', ')} with apt-get`);
  apt('install', '-y', '--no-install-recommends', ...packages);
}

/** What to put before a command so that it runs as root; undefined when that would need a password. */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  return onPath('sudo') && run('sudo', ['-n', 'true']).ok ? ['sudo', '-n'] : undefined;
}

/** Package names for the missing tools; undefined when this release of the system has no clang that is new enough. */
function aptPackages(missing) {
  const packages = { 'c++': 'g++', make: 'make', cmake: 'cmake', clang: newestAptClang() };
  const wanted = missing.map((tool) => packages[tool]);
  return wanted.includes(undefined) ? undefined : wanted;
}

function newestAptClang() {
  const offered = run('apt-cache', ['search', '--names-only', '^clang-[0-9]+$']).output;
  const versions = [...offered.matchAll(/^clang-(\d+) /gm)].map((match) => Number(match[1]));
  const known = clangVersions.find((version) => versions.includes(version));
  if (known !== undefined) return `clang-${known}`;
  // A system newer than this file: there the plain package is new enough.
  return versions.length > 0 && Math.min(...versions) > clangVersions[0] ? 'clang' : undefined;
}

/** One line: what is missing, and the command that installs it here. */
function howToInstall(missing) {
  const words = { 'c++': 'a C++ compiler', make: 'make', cmake: `cmake ≥ ${oldestCmake.join('.')}` };
  words.clang = isMac ? `Apple clang ≥ ${oldestClang.apple}` : `clang ≥ ${oldestClang.clang}`;
  return `${missing.map((tool) => words[tool]).join(', ')} missing: ${installCommand(missing)}`;
}

function installCommand(missing) {
  if (isMac) {
    const commands = [];
    if (missing.some((tool) => tool !== 'cmake')) commands.push('xcode-select --install');
    if (missing.includes('cmake')) commands.push('brew install cmake');
    return `run \`${commands.join(' && ')}\`, then this again`;
  }
  if (onPath('apt-get')) {
    const packages = aptPackages(missing);
    if (packages) {
      const install = `apt-get install -y --no-install-recommends ${packages.join(' ')}`;
      return `run \`sudo apt-get update && sudo ${install}\`, then this again`;
    }
    return `run \`sudo apt-get update\`, then this again; if this release has no clang-${oldestClang.clang}, apt.llvm.org has`;
  }
  const managers = {
    dnf: { install: 'dnf install', 'c++': 'gcc-c++' },
    zypper: { install: 'zypper install', 'c++': 'gcc-c++' },
    pacman: { install: 'pacman -S', 'c++': 'gcc' },
    apk: { install: 'apk add', 'c++': 'g++' },
  };
  for (const [manager, names] of Object.entries(managers)) {
    if (!onPath(manager)) continue;
    return `run \`sudo ${names.install} ${missing.map((tool) => names[tool] ?? tool).join(' ')}\`, then this again`;
  }
  return "install with your system's package manager, then run this again";
}

// ---- 3. npm packages --------------------------------------------------------------------------------------------

function installPackages() {
  if (packagesAreCurrent()) return;
  say('installing npm packages');
  const args = ['ci', '--include=dev', '--dry-run=false', '--no-audit', '--no-fund'];
  // Under `npm run`, the npm that runs us; it need not be the one on PATH.
  const npm = process.env.npm_execpath ?? '';
  const [command, ...rest] = npm.endsWith('npm-cli.js') ? [process.execPath, npm, ...args] : ['npm', ...args];
  run(command, rest, { orFail: 'npm ci failed' });
}

/** Whether node_modules holds what package-lock.json asks for, however it came there. */
function packagesAreCurrent() {
  const wanted = lockedPackages(at('package-lock.json'));
  const installed = lockedPackages(at('node_modules/.package-lock.json'));
  if (!wanted || !installed) return false;
  return Object.entries(wanted).every(([name, entry]) => {
    if (name === '') return true;
    const found = installed[name];
    if (!found) return entry.optional === true; // for another platform
    return found.version === entry.version && found.integrity === entry.integrity;
  });
}

function lockedPackages(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages;
  } catch {
    return undefined;
  }
}

// ---- 4. The addon -----------------------------------------------------------------------------------------------

function buildAddon() {
  const build = at('native/build');
  const require = createRequire(at('package.json'));
  const cmakeJs = path.join(path.dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js');
  const addonApi = require('node-addon-api/package.json').version;
  const state = fingerprint(addonSources(), [process.platform, process.arch, addonApi]);
  const stamp = path.join(build, '.stamp');
  if (existsSync(path.join(build, 'Release/upgc.node')) && isStamped(stamp, state)) return;

  say('building the native addon');
  rmSync(stamp, { force: true });
  // CMake refuses a build folder that was configured under another path.
  const cache = readIfPresent(path.join(build, 'CMakeCache.txt'));
  const configuredHere = cache?.includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${root}\n`) === true;
  if (!configuredHere) rmSync(build, { recursive: true, force: true });
  const jobs = String(os.availableParallelism?.() ?? os.cpus().length);
  const args = [
    cmakeJs,
    'build',
    '--log-level',
    'error',
    '--directory',
    root,
    '--out',
    build,
    '--parallel',
    jobs,
  ];
  if (!configuredHere || !run(process.execPath, args).ok) {
    // A fresh folder, also when an old one failed: its cache may name a compiler that is gone.
    rmSync(build, { recursive: true, force: true });
    run(process.execPath, args, { orFail: 'the native addon did not compile' });
  }
  if (!existsSync(path.join(build, 'Release/upgc.node'))) {
    throw new SetupError('the native addon was built, but native/build/Release/upgc.node is absent');
  }
  writeFileSync(stamp, state);
}

/** Everything that is compiled into the addon; native/msl is read when kernels are compiled. */
function addonSources() {
  const skipped = new Set(['build', 'msl']);
  const folders = filesIn(at('native')).filter((name) => !skipped.has(name) && !name.endsWith('.mjs'));
  return [at('CMakeLists.txt'), ...folders.flatMap((name) => filesUnder(at('native', name)))];
}

// ---- 5. dist/ ---------------------------------------------------------------------------------------------------

function buildDist() {
  const sources = filesUnder(at('src')).filter((file) => file.endsWith('.ts'));
  const state = fingerprint([at('tsconfig.json'), at('package-lock.json'), ...sources], []);
  const stamp = at('dist/.stamp');
  if (isStamped(stamp, state)) return;

  say('compiling src/ to dist/');
  rmSync(stamp, { force: true });
  // All files are written or none: a type error leaves the last good dist/ in place.
  const args = [at('node_modules/typescript/bin/tsc'), '-p', at('tsconfig.json'), '--noEmitOnError'];
  run(process.execPath, args, { orFail: 'src/ did not compile' });
  const modules = new Set(sources.map((file) => path.relative(at('src'), file).replace(/\.ts$/, '')));
  for (const file of filesUnder(at('dist'))) {
    if (!modules.has(path.relative(at('dist'), file).replace(/(\.d\.ts|\.js)(\.map)?$/, ''))) rmSync(file);
  }
  if (existsSync(at('dist/cli/main.js'))) chmodSync(at('dist/cli/main.js'), 0o755);
  mkdirSync(at('dist'), { recursive: true });
  writeFileSync(stamp, state);
}

// ---- Shared -----------------------------------------------------------------------------------------------------

function at(...parts) {
  return path.join(root, ...parts);
}

function say(line) {
  process.stderr.write(`upgc setup: ${line}\n`);
}

/** Runs a command quietly. With `orFail`, a failure shows its output and throws. */
function run(command, args, { orFail } = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 1 << 28,
  });
  const ok = result.status === 0;
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`;
  if (!ok && orFail !== undefined) {
    process.stderr.write(output);
    throw new SetupError(result.error ? `${orFail}: ${result.error.message}` : orFail);
  }
  return { ok, output };
}

function pathFolders() {
  return (process.env.PATH ?? '').split(path.delimiter).filter((folder) => folder !== '');
}

function onPath(name) {
  return pathFolders()
    .map((folder) => path.join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

function filesIn(folder) {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The file itself, or every file below the folder, sorted. */
function filesUnder(place) {
  const entries = readdirSyncOrFile(place);
  if (!entries) return [place];
  return entries.sort().flatMap((name) => filesUnder(path.join(place, name)));
}

function readdirSyncOrFile(place) {
  try {
    return readdirSync(place);
  } catch (error) {
    if (error.code === 'ENOTDIR') return undefined;
    throw error;
  }
}

function fingerprint(files, facts) {
  const hash = createHash('sha256').update(JSON.stringify(facts));
  for (const file of files) {
    const content = readFileSync(file);
    hash.update(JSON.stringify([path.relative(root, file), content.length])).update(content);
  }
  return hash.digest('hex');
}

function isStamped(stamp, state) {
  return readIfPresent(stamp) === state;
}

function readIfPresent(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
