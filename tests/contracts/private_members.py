"""What the project uses of other libraries that they promise nobody: their private members, and hooks that are theirs.

A row a member. An upgrade that takes one away, or no longer calls it, fails in test_private_members.py by its name. So
does a private member that code of ours uses and that has no row here, and a row that nothing uses any more.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """One member of another library, and what of it has to stay as it is."""

    library: str  # as pip names it; where it is not installed, the row is skipped
    name: str  # dotted, from the import on; `*.name` for what the library looks for on any object
    read_in: str  # the library's version whose code was read
    why: str
    called_by: str = ""  # what of the library calls it, reads it or looks for it
    parameters: tuple[str, ...] = ()  # those that we give it, or take in its place

    @property
    def on_any_object(self) -> bool:
        """Whether it is none of the library's own, but a mark that it looks for."""
        return self.name.startswith("*.")

    @property
    def attribute(self) -> str:
        """Its name alone."""
        return self.name.rpartition(".")[2]


# Begins with an underscore, and is documented all the same.
DOCUMENTED = ("_asdict", "_exit", "_fields", "_fields_", "_make", "_replace")

# Without an underscore, yet documented nowhere: whatever is imported from there needs a row.
INTERNAL = (
    "conversion.", "cudnn.sdpa", "hydra.core.override_parser",
    "llama_cpp.llama_chat_format", "mlflow.store", "peft.utils.other", "transformers.modeling_rope_utils",
    "transformers.pytorch_utils", "transformers.utils.chat_template_utils",
)  # fmt: skip

# Classes whose methods call each other as no documentation says: each that is overridden needs a row, public or not.
NOT_FOR_DERIVING = (
    "transformers.trainer.Trainer",
    "trl.trainer.base_trainer._BaseTrainer",
    "trl.trainer.sft_trainer.SFTTrainer",
    "uvicorn.server.Server",
)

# The training loop: from `train` to each hook, every link of the chain.
TRAINER = (
    Member(
        "transformers", "transformers.Trainer._run_epoch", "5.17.0",
        "overridden: begins a resumed training, and takes no step beyond the last one",
        called_by="transformers.Trainer._inner_training_loop",
    ),
    Member(
        "transformers", "transformers.Trainer.get_train_dataloader", "5.17.0",
        "overridden: updates take the place of batches",
        called_by="transformers.Trainer._inner_training_loop",
    ),
    Member(
        "transformers", "transformers.Trainer._tr_loss", "5.17.0",
        "read and added to: the sum of losses since the last log line, which a checkpoint keeps",
        called_by="transformers.Trainer._inner_training_loop",
    ),
    Member(
        "transformers", "transformers.Trainer._globalstep_last_logged", "5.17.0",
        "read and set: the step of that log line",
        called_by="transformers.Trainer._maybe_log_save_evaluate",
    ),
    Member(
        "transformers", "*.set_epoch", "5.17.0",
        "our loader has it: the order of an epoch's updates",
        called_by="transformers.Trainer._run_epoch",
    ),
    Member(
        "trl", "trl.SFTTrainer.training_step", "1.14.2",
        "overridden: an update's micro-batches",
        called_by="transformers.Trainer._run_epoch", parameters=("args", "kwargs"),
    ),
    Member(
        "transformers", "transformers.Trainer.training_step", "5.17.0",
        "what TRL's stands for: the arguments that ours takes",
        called_by="trl.SFTTrainer.training_step", parameters=("model", "inputs", "num_items_in_batch"),
    ),
    Member(
        "trl", "trl.SFTTrainer.compute_loss", "1.14.2",
        "overridden: the share of a micro-batch in its update's loss",
        parameters=("model", "inputs"),
    ),
    Member(
        "transformers", "transformers.Trainer.floating_point_ops", "5.17.0",
        "overridden: they are not counted there",
        called_by="transformers.Trainer._run_epoch", parameters=("inputs",),
    ),
    Member(
        "transformers", "transformers.Trainer._track_num_input_tokens", "5.17.0",
        "overridden: counts an update's tokens",
        called_by="transformers.Trainer._run_epoch", parameters=("inputs",),
    ),
    Member(
        "transformers", "transformers.Trainer._clip_grad_norm", "5.17.0",
        "overridden: the norm of gradients in shards as a plain tensor",
        called_by="transformers.Trainer._run_epoch", parameters=("model",),
    ),
    Member(
        "transformers", "transformers.Trainer._get_grad_norm", "5.17.0",
        "overridden: sees before each update that nothing is broken",
        called_by="transformers.Trainer._run_epoch", parameters=("model", "grad_norm"),
    ),
    Member(
        "transformers", "transformers.Trainer._maybe_log_save_evaluate", "5.17.0",
        "overridden: waits for the update's figures before anything is written of it",
        called_by="transformers.Trainer._run_epoch",
    ),
    Member(
        "transformers", "transformers.Trainer._evaluate", "5.17.0",
        "overridden, and called on resumption: an evaluation that is stopped ends in a checkpoint",
        called_by="transformers.Trainer._maybe_log_save_evaluate", parameters=("trial", "ignore_keys_for_eval"),
    ),
    Member(
        "trl", "trl.SFTTrainer.evaluate", "1.14.2",
        "overridden: the validation loss of our updates",
        called_by="transformers.Trainer._evaluate",
    ),
    Member(
        "trl", "trl.SFTTrainer.log", "1.14.2",
        "overridden: a log line has the rewards of its updates, too",
        called_by="transformers.Trainer._maybe_log_save_evaluate", parameters=("logs", "start_time"),
    ),
    Member(
        "transformers", "transformers.Trainer.create_scheduler", "5.17.0",
        "overridden: tells a schedule the updates of its share",
        called_by="transformers.Trainer._prepare_for_training", parameters=("num_training_steps", "optimizer"),
    ),
)  # fmt: skip

CHECKPOINTS = (
    Member(
        "trl", "trl.SFTTrainer._save_checkpoint", "1.14.2",
        "overridden: the checkpoint is there whole or not at all",
        called_by="transformers.Trainer._maybe_log_save_evaluate", parameters=("model", "trial"),
    ),
    Member(
        "transformers", "transformers.Trainer._save_checkpoint", "5.17.0",
        "called by TRL's: writes what ours has put up",
        called_by="trl.SFTTrainer._save_checkpoint", parameters=("model", "trial"),
    ),
    Member(
        "transformers", "transformers.Trainer.save_model", "5.17.0",
        "overridden: gathers weights in shards",
        called_by="transformers.Trainer._save_checkpoint", parameters=("output_dir", "_internal_call"),
    ),
    Member(
        "transformers", "transformers.Trainer._save", "5.17.0",
        "called with gathered weights",
        called_by="transformers.Trainer.save_model", parameters=("output_dir", "state_dict"),
    ),
    Member(
        "transformers", "transformers.Trainer._save_optimizer_and_scheduler", "5.17.0",
        "overridden: their states whole, from shards",
        called_by="transformers.Trainer._save_checkpoint", parameters=("output_dir",),
    ),
    Member(
        "transformers", "transformers.Trainer._load_optimizer_and_scheduler", "5.17.0",
        "overridden: their states whole, into shards",
        called_by="transformers.Trainer._prepare_for_training", parameters=("checkpoint",),
    ),
    Member(
        "transformers", "transformers.Trainer._load_from_checkpoint", "5.17.0",
        "overridden, and called to take the best step's weights",
        called_by="transformers.Trainer.train", parameters=("resume_from_checkpoint", "model"),
    ),
    Member(
        "trl", "trl.SFTTrainer.create_model_card", "1.14.2",
        "overridden: leaves the README.md out",
        called_by="trl.SFTTrainer._save_checkpoint",
    ),
)  # fmt: skip

MODELS = (
    Member(
        "transformers", "transformers.TrainingArguments._n_gpu", "5.17.0",
        "set: one of several visible GPUs, lest DataParallel multiply the batch",
        called_by="transformers.TrainingArguments.n_gpu",
    ),
    Member(
        "transformers", "transformers.PreTrainedConfig._commit_hash", "5.17.0",
        "read: the commit of the Hub that a model was loaded from",
        called_by="transformers.PreTrainedConfig.get_config_dict",
    ),
    Member(
        "transformers", "transformers.PreTrainedConfig._attn_implementation", "5.17.0",
        "read: what a model attended by before an evaluation lent it another implementation",
        called_by="transformers.PreTrainedModel.set_attn_implementation",
    ),
    Member(
        "transformers", "transformers.utils.chat_template_utils.render_jinja_template", "5.17.0",
        "called: conversations that have tools, whose template marks what the assistant said",
    ),
    Member(
        "transformers", "transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS", "5.17.0",
        "called: what a rope scaling makes of the frequencies, beside which a GGUF is held",
    ),
    Member(
        "transformers", "transformers.pytorch_utils.Conv1D", "5.17.0",
        "looked for: GPT-2's projections, which are no Linear",
    ),
    Member(
        "peft", "peft.utils.other.get_pattern_key", "0.21.2",
        "called: the pattern that gives a module its rank, as PEFT chooses it",
        parameters=("pattern_keys", "key_to_match"),
    ),
    Member(
        "accelerate", "*._is_accelerate_prepared", "1.15.0",
        "set on a model in shards, which Accelerate must not prepare once more",
        called_by="accelerate.Accelerator.prepare",
    ),
)  # fmt: skip

PYTORCH = (
    Member(
        "torch", "torch._scaled_mm", "2.13.0",
        "called: a product in FP8",
        parameters=("self", "mat2", "scale_a", "scale_b", "out_dtype", "use_fast_accum"),
    ),
    Member(
        "torch", "torch.ops.aten._flash_attention_forward", "2.13.0",
        "called: FlashAttention over the slots of a cache, each as long as it is",
    ),
    Member(
        "torch", "torch._dynamo.config.specialize_float", "2.13.0",
        "set: numbers such as a norm's epsilon stay constants of compiled code",
    ),
    Member(
        "torch", "torch.Tensor._version", "2.13.0",
        "read: how often weights were written to that trainings share",
    ),
    Member(
        "torch", "*._forward_hooks", "2.13.0",
        "read: whether a module of a base has hooks, which mean that very module",
        called_by="torch.nn.Module._call_impl",
    ),
    Member(
        "torch", "*._forward_pre_hooks", "2.13.0",
        "read: the same",
        called_by="torch.nn.Module._call_impl",
    ),
    Member(
        "torch", "*._step_supports_amp_scaling", "2.13.0",
        "read on an optimizer: whether it can leave a broken update out",
        called_by="torch.optim.Adam.__init__",
    ),
    Member(
        "torch", "*.found_inf", "2.13.0",
        "set on an optimizer: that it shall",
        called_by="torch.optim.Adam.step",
    ),
    Member(
        "nvidia-cudnn-frontend", "cudnn.sdpa.fwd.torch_op", "1.32.0",
        "imported: registers torch.ops.cudnn.sdpa_fwd and sdpa_bwd",
    ),
    Member(
        "nvidia-cudnn-frontend", "torch.ops.cudnn._packed_lse_to_padded", "1.32.0",
        "called: the sums of a packed row as the backward pass wants them",
        called_by="cudnn.sdpa.packed_lse",
    ),
)  # fmt: skip

LLAMA_CPP = (
    Member(
        "llama-cpp-python", "llama_cpp.llama_cpp._lib", "0.3.36",
        "called: functions of the library that have no binding (ggml's and gguf's)",
    ),
    Member(
        "llama-cpp-python", "*._ZNK13llama_context9get_schedEv", "0.3.36",
        "called: llama_context::get_sched, so that a graph with adapters is looked at once and not at each decode",
    ),
    Member(
        "llama-cpp-python", "conversion.base.ModelBase.get_tensors", "0.3.36",
        "replaced: bf16 to F16 at once",
        called_by="conversion.base.ModelBase.prepare_tensors",
    ),
    Member(
        "llama-cpp-python", "conversion.base.TextModel.get_vocab_base_pre", "0.3.36",
        "replaced: knows a tokenizer by its pattern",
        called_by="conversion.base.TextModel.get_vocab_base", parameters=("self", "tokenizer"),
    ),
    Member(
        "llama-cpp-python", "conversion.base.TextModel.get_vocab_base", "0.3.36",
        "replaced: leaves out tokens that the model has no row for",
        called_by="conversion.base.TextModel._set_vocab_gpt2",
    ),
    Member(
        "llama-cpp-python", "conversion.base.TextModel.prepare_metadata", "0.3.36",
        "replaced: writes what the server's tokenizer goes by",
        called_by="conversion.base.ModelBase.write", parameters=("self", "vocab_only"),
    ),
    Member(
        "llama-cpp-python", "conversion.base.TextModel._set_vocab_gpt2", "0.3.36",
        "called: the vocabulary of a Phi without SentencePiece",
        called_by="conversion.base.TextModel.set_vocab",
    ),
    Member(
        "llama-cpp-python", "conversion.phi.Phi3MiniModel.set_vocab", "0.3.36",
        "replaced: tells a Phi by its files",
        called_by="conversion.base.TextModel.prepare_metadata",
    ),
)  # fmt: skip

SERVER = (
    Member(
        "uvicorn", "uvicorn.Server.startup", "0.54.0",
        "overridden: what the application needs starts beside the port",
        called_by="uvicorn.Server._serve", parameters=("sockets",),
    ),
    Member(
        "uvicorn", "uvicorn.Server.shutdown", "0.54.0",
        "overridden: answers end first",
        called_by="uvicorn.Server._serve", parameters=("sockets",),
    ),
    Member(
        "uvicorn", "uvicorn.Server.handle_exit", "0.54.0",
        "overridden: the second signal cuts off",
        called_by="uvicorn.Server.capture_signals", parameters=("sig", "frame"),
    ),
    Member(
        "uvicorn", "uvicorn.Server.should_exit", "0.54.0",
        "read and set: that the server ends",
        called_by="uvicorn.Server.on_tick",
    ),
    Member(
        "uvicorn", "uvicorn.Server.force_exit", "0.54.0",
        "set: that it waits for nobody",
        called_by="uvicorn.Server._wait_tasks_to_complete",
    ),
    Member(
        "uvicorn", "uvicorn.protocols.http.h11_impl.H11Protocol._should_upgrade", "0.54.0",
        "overridden: a try for a websocket is answered as any request, and writes no line",
        called_by="uvicorn.protocols.http.h11_impl.H11Protocol.handle_events",
    ),
    Member(
        "starlette", "starlette.routing.Router.default", "1.10.0",
        "replaced: what is answered while the server starts",
        called_by="starlette.routing.Router.app",
    ),
    Member(
        "gradio", "gradio.components.Component.preprocess", "6.31.0",
        "replaced on widgets: without a traceback for each bad value",
        called_by="gradio.Blocks.preprocess_data", parameters=("payload",),
    ),
    Member(
        "huggingface-hub", "huggingface_hub.utils._http", "1.33.0",
        "filtered: its log lines on each retry, in the thread that pushes feedback",
    ),
    Member(
        "huggingface-hub", "huggingface_hub.hf_api", "1.33.0",
        "filtered: its log lines, as those",
    ),
)  # fmt: skip

COMMANDS = (
    Member(
        "hydra-core", "hydra.core.override_parser.overrides_parser.OverridesParser", "1.3.8",
        "called: overrides read as Hydra's command line reads them",
    ),
    Member(
        "hydra-core", "hydra.core.override_parser.types.Override", "1.3.8",
        "read: an override's key and value",
    ),
    Member(
        "hydra-core", "hydra.core.override_parser.types.ChoiceSweep", "1.3.8",
        "looked for: experiments that are swept over",
    ),
    Member(
        "hydra-core", "hydra.core.override_parser.types.IntervalSweep", "1.3.8",
        "its bounds and tags are what a sampler draws between",
    ),
    Member(
        "mlflow", "mlflow.store.artifact.artifact_repository_registry.get_artifact_repository", "3.17.2",
        "called: deletes a model's files, which the registry's client leaves",
        parameters=("artifact_uri", "tracking_uri"),
    ),
    Member(
        "mlflow", "mlflow.store.db.utils", "3.17.2",
        "silenced: its tracebacks of what our one line says",
    ),
    Member(
        "mlflow", "mlflow.store.tracking.sqlalchemy_store", "3.17.2",
        "imported beside the wait for a database's turn, and not within it",
    ),
    Member(
        "mlflow", "mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", "3.17.2",
        "made: all tables of a new SQLite file, which is renamed once they are there",
        parameters=("db_uri", "default_artifact_root"),
    ),
)  # fmt: skip

MEMBERS = (*TRAINER, *CHECKPOINTS, *MODELS, *PYTORCH, *LLAMA_CPP, *SERVER, *COMMANDS)
