"""`terroir train`: run a configuration here, or submit it and watch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import Progress, TaskID

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.cli import train_profiles, train_queue
from terroir.cli.config_flags import CommandWithKeys, GroupWithKeys, given_keys
from terroir.cli.session import Session, resource, session
from terroir.cli.train_folder import overruled, service_config
from terroir.common.collector import collector_paused
from terroir.common.errors import FailedPrecondition, InvalidArgument

app = typer.Typer(
    cls=GroupWithKeys,
    invoke_without_command=True,
    help="Train a style. `terroir train --config style.yaml` trains here, without any server; "
    "`terroir train submit` hands the same file to the training service. Every key of the file is a flag too, which "
    "overrules it: `terroir train --config style.yaml --lora-rank 8`.",
)
app.command("profiles")(train_profiles.profiles)
app.command("queue")(train_queue.queue)

_STATES: Final = {
    pb.JOB_STATE_QUEUED: "queued", pb.JOB_STATE_RUNNING: "running", pb.JOB_STATE_SUCCEEDED: "succeeded",
    pb.JOB_STATE_FAILED: "failed", pb.JOB_STATE_CANCELLED: "cancelled",
}  # fmt: skip
JobName = Annotated[str, typer.Argument(help="Job, such as `jobs/3f2a…`.", show_default=False)]
ConfigPath = Annotated[Path, typer.Argument(help="YAML file of the run (docs/training-config.md).", show_default=False)]


def read_config(path: Path) -> str:
    """The file's text; raises InvalidArgument (CONFIG_MISSING) if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {path}: {error}", reason="CONFIG_MISSING") from error


@app.callback()
def train(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Train from this YAML file on this machine, with no server.")
    ] = None,
    start_over: Annotated[
        bool, typer.Option("--start-over", help="Throw away what an earlier run left in output_dir to go on from.")
    ] = False,
    judge_model: Annotated[
        Path | None,
        typer.Option(help="Folder of the CLIP that judges; the embedded one judges runs on the embedded base alone."),
    ] = None,
) -> None:
    """Train locally with --config, or use one of the commands below."""
    given = given_keys(context)
    if (command := context.invoked_subcommand) is not None:
        if config is not None or start_over or given:
            raise InvalidArgument(
                f"options before `{command}` are those of a run on this machine; write those of `{command}` behind it",
                reason="OPTIONS_MISPLACED",
            )
        return
    if config is None and not given:
        raise InvalidArgument(
            "say what to train: `terroir train --config style.yaml`, or see `terroir train --help`",
            reason="CONFIG_MISSING",
        )
    from terroir.training.config.flags import absolute_paths
    from terroir.training.config.parser import resolve_synonyms

    with collector_paused():
        # torch is an extra: loaded only where training really runs here
        from terroir.training.local.run import run_locally

    this = session(context)
    with this.progress() as bar:
        task = bar.add_task("training", total=None)
        result = run_locally(
            config,
            over=absolute_paths(resolve_synonyms(given), Path.cwd()),
            start_over=start_over,
            judge_model_folder=judge_model,
            on_progress=lambda p: bar.update(
                task,
                completed=p.drawn if p.to_draw else p.step,
                total=p.to_draw or p.total_steps,
                description=f"{p.phase} loss {p.loss:.4f}",
            ),
        )
    if this.as_json:
        files = [str(path) for path in result.files]
        this.print_json({"files": files, "steps": result.steps, **({"hint": result.hint} if result.hint else {})})
        return
    for path in (*result.files, result.report):
        this.say(f"wrote {path}")
    if result.judgement:
        this.say(f"judged {result.judgement.verdict}: step {result.steps} is in the files")
    if result.hint:
        this.say(f"hint: {result.hint}")


@app.command(cls=CommandWithKeys)
def validate(
    context: typer.Context,
    config: ConfigPath,
    local: Annotated[
        bool, typer.Option("--local", help="Check here, for a run without a server; otherwise the service checks.")
    ] = False,
) -> None:
    """Check a configuration and show it with every default filled in, and what in it is probably not meant."""
    this, given = session(context), given_keys(context)
    if local:
        from terroir.training.config.parser import dump_config
        from terroir.training.local.config import read_local_config

        parsed = read_local_config(config, given)
        answer = pb.ValidateConfigResponse(config_yaml=dump_config(parsed.config), warnings=parsed.warnings)
    else:
        with this.client() as client:
            answer = client.training.validate(overruled(read_config(config), given))
    this.show(answer, answer.config_yaml, *(f"warning: {w}" for w in answer.warnings))


@app.command(cls=CommandWithKeys)
def submit(
    context: typer.Context,
    config: ConfigPath,
    adapter: Annotated[
        str, typer.Option(help="Adapter that receives the result, such as `jiangnan`. Default: the file's.")
    ] = "",
    watch: Annotated[bool, typer.Option(help="Stay and show the progress.")] = True,
    rights: Annotated[
        str, typer.Option(help="With `train_data_dir`: statement that you may train on the pictures of that folder.")
    ] = "",
) -> None:
    """Queue a run on the training service; it goes on when you leave."""
    this = session(context)
    with this.client() as client:
        run = service_config(this, client, config.parent, read_config(config), given_keys(context), adapter, rights)
        job = client.training.create(resource("adapters", run.adapter), run.text)
        if not watch:
            this.show(job, f"queued {job.name}; look: terroir train watch {job.name}")
            return
        this.say(f"queued {job.name}")
        with this.progress() as bar:
            task = bar.add_task(run.adapter, total=None)
            for state in client.training.watch(job.name):
                job = state
                show_progress(bar, task, job)
    finish(this, job)


def show_progress(bar: Progress, task: TaskID, job: pb.Job) -> None:
    """Bring a progress bar up to a job's state."""
    progress = job.progress
    now = f"{progress.phase or 'queued'} loss {progress.loss:.4f}"
    if job.HasField("wait"):
        now = train_queue.describe_wait(job.wait)
    bar.update(
        task,
        completed=progress.drawn if progress.to_draw else progress.step,
        total=progress.to_draw or progress.total_steps or None,
        description=f"{job.adapter.removeprefix('adapters/')} {now}",
    )


def finish(this: Session, job: pb.Job) -> None:
    """Say how a job ended; raises FailedPrecondition with the job's own reason if it failed."""
    if job.state == pb.JOB_STATE_FAILED:
        raise FailedPrecondition(f"{job.name} failed: {job.error.message}", reason=job.error.reason)
    this.show(job, f"{job.name} {_STATES[job.state]}: {job.adapter_version or 'nothing published'}")


@app.command("list")
def list_jobs(context: typer.Context) -> None:
    """List jobs, newest first."""
    with session(context).client() as client:
        session(context).table(
            client.training.list(),
            [
                ("job", lambda j: j.name), ("state", lambda j: _STATES.get(j.state, "?")),
                ("step", lambda j: f"{j.progress.step}/{j.progress.total_steps}"), ("adapter", lambda j: j.adapter),
                ("attempts", lambda j: str(j.attempt.number)), ("version", lambda j: j.adapter_version),
                ("waits", lambda j: train_queue.describe_wait(j.wait) if j.HasField("wait") else ""),
            ],
            empty="no jobs; start one: terroir train submit CONFIG --adapter NAME",
        )  # fmt: skip


@app.command()
def show(
    context: typer.Context,
    name: JobName,
    config: Annotated[
        bool, typer.Option("--config", help="Print only its whole configuration, as YAML that can be run again.")
    ] = False,
) -> None:
    """Show one job: state, worker, configuration."""
    with session(context).client() as client:
        job = client.training.get(resource("jobs", name))
    if config:
        typer.echo(job.config_yaml.rstrip())
        return
    attempt = job.attempt
    session(context).show(
        job,
        f"{job.name} {_STATES.get(job.state, '?')} step {job.progress.step}/{job.progress.total_steps}",
        f"attempt {attempt.number} {attempt.submission_id} worker pid {attempt.worker_pid} node {attempt.node_id}",
        *([train_queue.describe_wait(job.wait)] if job.HasField("wait") else []),
        *([f"makes room for {job.makes_room_for}"] if job.makes_room_for else []),
        *(train_queue.describe_attempt(past) for past in job.past_attempts),
        f"{job.dataset_version} on {job.base} → {job.adapter_version or job.adapter}",
        job.config_yaml,
    )


@app.command()
def watch(context: typer.Context, name: JobName) -> None:
    """Follow a job until it ends."""
    this = session(context)
    with this.client() as client, this.progress() as bar:
        task = bar.add_task(name, total=None)
        for job in client.training.watch(resource("jobs", name)):
            show_progress(bar, task, job)
    finish(this, job)


@app.command()
def logs(
    context: typer.Context,
    name: JobName,
    attempt: Annotated[int, typer.Option(help="Attempt, from 1; 0 for the newest.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
) -> None:
    """Print a job's log."""
    with session(context).client() as client:
        for line in client.training.logs(resource("jobs", name), attempt, follow=follow):
            typer.echo(line)


@app.command()
def cancel(context: typer.Context, name: JobName) -> None:
    """Ask a job to stop at its next step."""
    with session(context).client() as client:
        job = client.training.cancel(resource("jobs", name))
    session(context).show(job, f"{job.name} {_STATES.get(job.state, '?')}: it stops at its next step")


@app.command()
def checkpoints(context: typer.Context, name: JobName) -> None:
    """List a job's checkpoints."""
    with session(context).client() as client:
        session(context).table(
            client.training.checkpoints(resource("jobs", name)),
            [
                ("checkpoint", lambda c: c.name), ("loss", lambda c: f"{c.loss:.4f}"),
                ("bytes", lambda c: str(c.size_bytes)), ("saved", lambda c: c.create_time.ToJsonString()),
            ],
            empty="no checkpoints yet",
        )  # fmt: skip
