import { closeSync, openSync, writeSync } from 'node:fs';
import { actualOf, findAdapter, goldenFiles, judge, readCase } from './harness.js';

const USAGE = 'usage: npm run conformance -- [--actual FILE.jsonl] PATH...';

/** Runs golden files or folders; returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  const paths: string[] = [];
  let actualFile: string | undefined;
  for (let i = 0; i < args.length; i++) {
    if (args[i] === '--actual') actualFile = args[++i];
    else if (args[i].startsWith('--actual=')) actualFile = args[i].slice('--actual='.length);
    else if (args[i].startsWith('-')) {
      console.error(`unknown option ${args[i]}; ${USAGE}`);
      return 2;
    } else paths.push(args[i]);
  }
  if (paths.length === 0 || actualFile === '') {
    console.error(USAGE);
    return 2;
  }
  const cases = goldenFiles(paths).map((path) => ({ path, golden: readCase(path) }));
  if (actualFile !== undefined) return await writeActual(cases, actualFile);
  let ok = 0;
  let failed = 0;
  let without = 0;
  for (const { golden } of cases) {
    const verdict = await judge(golden);
    const name = `${verdict.system}/${verdict.case}`;
    if (verdict.status === 'ok') {
      ok++;
      console.log(`ok ${name} (${verdict.rule})`);
    } else if (verdict.status === 'FAIL') {
      failed++;
      console.log(`FAIL ${name}: ${verdict.detail} (${verdict.rule})`);
    } else {
      without++;
      console.log(`no adapter ${name}`);
    }
  }
  console.log(`${cases.length} cases: ${ok} ok, ${failed} failed, ${without} without adapter`);
  return failed + without > 0 ? 1 : 0;
}

async function writeActual(
  cases: readonly { path: string; golden: ReturnType<typeof readCase> }[],
  file: string,
): Promise<number> {
  const fd = openSync(file, 'w');
  let missing = 0;
  try {
    for (const { golden } of cases) {
      const name = `${golden.system}/${golden.case}`;
      const adapter = await findAdapter(golden.system);
      if (adapter === undefined) {
        missing++;
        console.log(`no adapter ${name}`);
        continue;
      }
      try {
        const actual = await actualOf(golden, adapter);
        writeSync(fd, `${JSON.stringify({ system: golden.system, case: golden.case, actual })}\n`);
        console.log(`written ${name}`);
      } catch (error) {
        missing++;
        console.log(`FAIL ${name}: threw ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  } finally {
    closeSync(fd);
  }
  console.log(`${cases.length} cases: ${cases.length - missing} written, ${missing} not`);
  return missing > 0 ? 1 : 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 2;
}
