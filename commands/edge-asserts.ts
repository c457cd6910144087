import { InputError } from '../src/errors.js';
import { checkAssertion, parseAssertion } from '../src/report/asserts.js';
import type { Report } from '../src/report/json.js';
import { EXIT } from './edge-run.js';

/** Asserts that were parsed before the run and are held against its report at the end. */
export interface AssertChecks {
  /** Prints a line for each that does not hold; the exit code of the command. Throws InputError for an unknown key. */
  check(report: Report): number;
}

/**
 * Parses `--assert` and reads `--baseline` before the long work.
 * @throws InputError for a fault of the grammar, an unreadable baseline, or `baseline.` without `--baseline`
 */
export async function prepareAsserts(
  texts: readonly string[],
  baselinePath: string | undefined,
): Promise<AssertChecks> {
  const assertions = texts.map(parseAssertion);
  const needsBaseline = assertions.find((assertion) => assertion.usesBaseline);
  if (needsBaseline && baselinePath === undefined) {
    throw new InputError(
      `--assert '${needsBaseline.text}': there is no baseline; name an earlier report with --baseline`,
    );
  }
  const baseline =
    baselinePath === undefined ? undefined : (await import('../src/report/json.js')).readReport(baselinePath);
  return {
    check(report) {
      const failed = assertions
        .map((assertion) => checkAssertion(assertion, report, baseline))
        .filter((result) => !result.holds);
      for (const { line } of failed) process.stderr.write(`${line}\n`);
      return failed.length > 0 ? EXIT.assertFailed : EXIT.done;
    },
  };
}
