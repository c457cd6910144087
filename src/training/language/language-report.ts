import type { Figure } from '../../report/plots/figure.js';
import type { ReferenceLine } from '../../report/plots/line-chart.js';
import type { SummaryCell } from '../../report/summary-table.js';
import type { GradCheckBody, GradientGraphBody } from '../grad-check-report.js';
import type { LoSparseFigures } from '../losparse-parts.js';
import { type CurvePoint, curvePanel, stepPanel } from '../training-curve.js';
import type { AttentionTrainingBody } from './attention-training.js';
import { attentionPanels, attentionSummary } from './attention-training-plot.js';
import type { LanguageEvaluation, TokenMean } from './language-evaluation.js';

export const LANGUAGE_SCHEMA = 'distill-train-language';

/** What a report says of a run. */
export interface LanguageBody {
  readonly student: {
    readonly source: 'directory' | 'config' | 'layers' | 'onnx';
    readonly model_type: string;
    readonly layers: number | null;
    readonly hidden_size: number | null;
    readonly vocabulary: number;
    readonly parameters: number;
    readonly trainable_parameters: number;
    readonly lora: { readonly rank: number; readonly alpha: number; readonly matrices: number } | null;
    /** Layers of the teacher that were copied. */
    readonly copied_layers: readonly number[] | null;
  };
  /** Matrices of experts that are low rank plus sparse rows. */
  readonly losparse:
    | (LoSparseFigures & {
        readonly final_share: number | null;
        readonly pruning_warmup_steps: number | null;
      })
    | null;
  readonly teacher: {
    readonly kind: 'model' | 'capture' | 'top-k';
    readonly vocabulary: number | null;
    /** Mean probability of tokens that the student does not have, on the first rows. */
    readonly dropped_mass: number | null;
  } | null;
  readonly texts: {
    readonly train: object;
    readonly held_out: object | null;
  };
  readonly run: {
    readonly steps: number;
    readonly steps_of_an_epoch: number;
    readonly tokens_learnt: number;
    readonly skipped_steps: number;
    readonly on_policy_batches: number;
    /** Layers whose activations were computed twice to save memory. */
    readonly recomputed_layers: number;
    readonly kept: 'best' | 'last';
    readonly best_step: number | null;
  };
  readonly first_loss_nats: number;
  readonly last_loss_nats: number;
  /** On held-out text, before and after; the weights that are written. */
  readonly evaluation: { readonly before: LanguageEvaluation; readonly after: LanguageEvaluation } | null;
  readonly grad_check: GradCheckBody | null;
  /** Temperatures and thresholds that were trained. */
  readonly attention: AttentionTrainingBody | null;
  readonly gradient_graph: GradientGraphBody | null;
  readonly curve: readonly CurvePoint[];
  readonly warnings: readonly string[];
}

const plusMinus = ({ mean, standard_error }: TokenMean): string =>
  standard_error === null ? mean.toPrecision(5) : `${mean.toPrecision(5)} ± ${standard_error.toPrecision(2)}`;

/** Lines of standard output. */
export function languageSummary(body: LanguageBody): SummaryCell[][] {
  const { run, evaluation } = body;
  const rows: SummaryCell[][] = [
    ['steps', run.steps],
    ['tokens learnt', run.tokens_learnt],
    ['loss of the first step, nats', body.first_loss_nats],
    ['loss of the last step, nats', body.last_loss_nats],
  ];
  if (body.grad_check) {
    rows.push(['gradient check, worst relative error', body.grad_check.worst_relative_error]);
  }
  if (body.losparse) {
    const { rows: all, sparse_rows, bytes_before, bytes_after } = body.losparse;
    rows.push(['sparse rows that stay', `${sparse_rows} of ${all}`]);
    rows.push(['bytes of these matrices', `${bytes_before} to ${bytes_after}`]);
  }
  if (evaluation) {
    const { before, after } = evaluation;
    rows.push(['held-out perplexity before', before.perplexity.value], ['held-out perplexity', after.perplexity.value]);
    rows.push(['held-out loss, nats', plusMinus(after.nll_nats)]);
    if (after.teacher) {
      rows.push(['KL from the teacher, nats', plusMinus(after.teacher.kl_nats)]);
      rows.push(['agreement with the teacher', plusMinus(after.teacher.top1_agreement)]);
      const teacher = after.teacher.nll_nats;
      if (teacher) rows.push(["the teacher's perplexity", Math.exp(teacher.mean)]);
    }
    rows.push(['weights of step', run.kept === 'best' ? (run.best_step ?? run.steps) : run.steps]);
  }
  if (body.attention) rows.push(...attentionSummary(body.attention));
  return rows;
}

/** Held-out cross-entropy of the student before, and of its teacher. */
function knownLosses(evaluation: LanguageBody['evaluation']): ReferenceLine[] {
  if (evaluation === null) return [];
  const { before, after } = evaluation;
  const teacher = after.teacher?.nll_nats;
  return [
    { value: before.nll_nats.mean, label: 'held-out, before' },
    ...(teacher ? [{ value: teacher.mean, label: 'held-out, teacher' }] : []),
  ];
}

/** Loss against steps, gradient norms, figures before and after. */
export async function languageFigure(body: LanguageBody, subtitle: string): Promise<Figure> {
  const { evaluation } = body;
  return {
    title: `Training of ${body.student.model_type}, ${body.student.trainable_parameters} parameters`,
    subtitle,
    headline: evaluation
      ? [
          { label: 'Perplexity before', value: evaluation.before.perplexity.value },
          { label: 'Perplexity', value: evaluation.after.perplexity.value },
          ...(evaluation.after.teacher
            ? [
                {
                  label: 'KL from the teacher, nats',
                  value: evaluation.after.teacher.kl_nats.mean,
                  ...(evaluation.after.teacher.kl_nats.standard_error !== null && {
                    standardError: evaluation.after.teacher.kl_nats.standard_error,
                  }),
                },
              ]
            : []),
        ]
      : [{ label: 'Loss of the last step, nats', value: body.last_loss_nats }],
    panels: [
      await curvePanel(body.curve, 'held-out cross-entropy', knownLosses(evaluation)),
      await stepPanel(body.curve),
      ...(body.attention ? await attentionPanels(body.attention) : []),
    ],
    sections: [],
  };
}
