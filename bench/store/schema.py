"""The two tables of results, typed once. `docs/results.md` is generated from here."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1

STATUSES = {
    "ok": "trained to its end; stop_reason says which",
    "diverged": "the loss became NaN or infinite",
    "stopped": "ended early on purpose (nothing does so yet)",
    "failed": "raised an error; error_type and error_text say which",
    "oom": "ran out of memory",
    "timeout": "ran out of its time limit (--trial-timeout, --epoch-timeout)",
    "lost": "its process or node vanished; tried again by the same command",
}
FINAL = frozenset(STATUSES) - {"lost"}
"""A trial whose record has one of these statuses is not run again (see `--rerun`)."""


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, meaning, and whether two runs of one trial must agree on it.

    `later`: files from before the column lack it. Read, they hold the default of its trial field,
    which is what was trained, and null if it is no trial field.
    """

    name: str
    type: str  # string, int32, int64, float64 or bool
    meaning: str
    result: bool = True
    later: bool = False


def _c(name: str, type: str, meaning: str, result: bool = True, later: bool = False) -> Column:
    return Column(name, type, meaning, result, later)


RUNS: tuple[Column, ...] = (
    _c("schema", "int32", "version of this table's layout"),
    _c("run_id", "string", "12 hex digits: hash of the trial, its plugins, its corpus, protocol"),
    _c("protocol", "int32", "number of the training and evaluation protocol"),
    _c("corpus", "string", "corpus, full spelling"),
    _c("corpus_hash", "string", "SHA-256 over the three texts"),
    _c("cell", "string", "cell, full spelling (`name:key=value`)"),
    _c("regularizer", "string", "regularizer, full spelling (sums with `+`)"),
    _c("cell_hparams", "string", "JSON: every hyper-parameter of the cell"),
    _c("regularizer_hparams", "string", "JSON: every hyper-parameter, by regularizer name"),
    _c("cell_source", "string", "hash of the cell's source"),
    _c("regularizer_source", "string", "hash of the regularizers' source"),
    _c(
        "plugin_origin",
        "string",
        "where the plugins came from: tree, a folder, or a package and its version",
        False,
    ),
    _c("rep", "int32", "repetition index"),
    _c("seed", "int64", "seed derived from rep"),
    _c("nlayers", "int32", "recurrent layers"),
    _c("nhid", "int32", "units of a layer (all but the last when tied)"),
    _c("emsize", "int32", "embedding size"),
    _c("tied", "bool", "the decoder's weight is the embedding's"),
    _c("dropout", "float64", "dropout on the last layer's output"),
    _c("dropouti", "float64", "dropout on the embedded input"),
    _c("dropouth", "float64", "dropout between layers"),
    _c("dropoute", "float64", "dropout of whole words on the embedded input", later=True),
    _c("locked", "bool", "dropout masks are shared by all steps of a window", later=True),
    _c("bptt", "int32", "nominal window length in time steps"),
    _c("variable_bptt", "bool", "window lengths are drawn around bptt", later=True),
    _c("batch_size", "int32", "parallel text columns in training"),
    _c("epochs", "int32", "upper limit of epochs"),
    _c("objective", "string", "training objective, full spelling: nll or augmented", later=True),
    _c("optimizer", "string", "optimizer: sgd or nt-asgd"),
    _c("nonmono", "int32", "epochs without progress before nt-asgd averages", later=True),
    _c("lr", "float64", "starting learning rate"),
    _c("lr_decay", "float64", "divisor of lr after an epoch without a new best, under sgd"),
    _c("min_lr", "float64", "training ends when lr falls below, under sgd"),
    _c("clip", "float64", "limit on the global gradient norm"),
    _c("wdecay", "float64", "weight decay on all weights"),
    _c("precision", "string", "arithmetic: fp32 or fp64, true in every kernel"),
    _c("eval_mc", "int32", "passes of Monte Carlo evaluation, if any", later=True),
    _c("num_params", "int64", "trainable parameters, tied ones once"),
    _c("epochs_done", "int32", "epochs finished"),
    _c("averaged_from_epoch", "int32", "first epoch of nt-asgd's averages; else null", later=True),
    _c("best_epoch", "int32", "epoch (from 1) of the best valid nll"),
    _c("valid_nll", "float64", "nats per predicted token at the best epoch"),
    _c("test_nll", "float64", "the same on test, read once at the best-valid weights"),
    _c("valid_mc_nll", "float64", "valid nll of eval_mc's mean probabilities", later=True),
    _c("test_mc_nll", "float64", "the same on test, at the same weights", later=True),
    _c("valid_tokens", "int64", "predicted tokens of valid (all but the first)"),
    _c("test_tokens", "int64", "predicted tokens of test"),
    _c("unigram_nll", "float64", "valid nll of the training text's unigram model"),
    _c("valid_floor", "float64", "nll of the source itself on valid; null where not known"),
    _c("valid_excess", "float64", "valid_nll - valid_floor"),
    _c("valid_excess_se", "float64", "standard error of valid_excess, from blocks of tokens"),
    _c("test_floor", "float64", "nll of the source itself on test; null where not known"),
    _c("test_excess", "float64", "test_nll - test_floor"),
    _c("test_excess_se", "float64", "standard error of test_excess, from blocks of tokens"),
    _c("train_seconds", "float64", "training only, device synchronised", False),
    _c("eval_seconds", "float64", "all passes over valid and test, eval_mc's included", False),
    _c("tokens_per_s", "float64", "trained tokens per second of train_seconds", False),
    _c("peak_mem_bytes", "int64", "peak memory: of the device, or of the process on a CPU", False),
    _c("packed", "int32", "most trials at once in its process; clocks are shared", False, True),
    _c("resumed", "int32", "times the trial was resumed from a checkpoint", False, True),
    _c("threads", "int32", "CPU threads of the training process", False),
    _c("kernel_path", "string", "how steps ran: captured (replayed CUDA graphs) or eager"),
    _c("eager_because", "string", "why a GPU did not record them; else null", False, True),
    _c("status", "string", "ok, diverged, stopped, failed, oom, timeout or lost"),
    _c("stop_reason", "string", "annealed, epochs, nan, not_learned or impossible"),
    _c("error_type", "string", "class of the error"),
    _c("error_text", "string", "traceback of the error", False),
    _c("started_utc", "string", "start of the run, ISO 8601", False),
    _c("host", "string", "host name", False),
    _c("device", "string", "device, in words", False),
    _c("torch", "string", "torch version", False),
    _c("cuda", "string", "CUDA version; null on a CPU", False),
    _c("cudnn", "string", "cuDNN version; null on a CPU", False),
    _c("driver", "string", "version of NVIDIA's driver; null on a CPU", False, True),
    _c("determinism", "string", "switches that were on when the run ended", False, True),
    _c("python", "string", "Python version", False),
    _c("git_commit", "string", "commit of the harness; null outside a repository", False),
    _c("git_dirty", "bool", "uncommitted changes were present", False),
)

EPOCHS: tuple[Column, ...] = (
    _c("run_id", "string", "the run"),
    _c("epoch", "int32", "from 1"),
    _c("step", "int64", "windows trained so far"),
    _c("lr", "float64", "learning rate of this epoch"),
    _c("train_nll", "float64", "mean training nll, with dropout, without penalties"),
    _c("penalty", "float64", "mean of what the loss adds to the nll: penalties, augmented term"),
    _c("valid_nll", "float64", "valid nll after this epoch"),
    _c("grad_norm", "float64", "mean global gradient norm before clipping"),
    _c("seconds", "float64", "training seconds of this epoch", False),
    _c("tokens_per_s", "float64", "trained tokens per second", False),
)

RESULT_COLUMNS = tuple(c.name for c in RUNS if c.result)
"""Columns that must be equal between two runs of one trial (one CPU model, threads, torch)."""
EPOCH_RESULT_COLUMNS = tuple(c.name for c in EPOCHS if c.result)
