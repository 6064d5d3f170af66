"""What run_all.sh shows while notebooks run, and at the end."""

import run_all
import run_show
from tests.pretend import pretend_run
from tests.test_run_all import launch, planned


def test_what_came_out_stands_beside_the_papers(tmp_path):
    """Means over the seeds; and real images that lie there are named with the command that uses them."""
    arguments = run_all.build_parser().parse_args(["--only", "1,7", "--seeds", "0,1", "--results-dir", str(tmp_path)])
    jobs, runs = run_all.plan_jobs(arguments)
    for run in runs:
        pretend_run(
            tmp_path, **vars(run) | {"depth": 3 + run.seed if run.variant == "odn" else 8, "accuracy": 97.0 + run.seed}
        )
    arguments.data_dir = tmp_path / "data"
    (arguments.data_dir / "cifar-10-batches-py").mkdir(parents=True)
    for job, state in zip(jobs, ("done", "failed", "done"), strict=True):
        job.state = state
    told = "\n".join(run_show.summarise_launch(arguments, jobs, ["mnist"], runs))
    for text in (
        "stand-in images, an illustration",
        "MNIST          depth 3.5 of 8 (2): 97.50 % (99.31), the whole network 97.50 % (99.61)",
        "failed: 01 MNIST with ResNet-18, seed 1, ",
        f"report: {tmp_path}/smoke/report.html",
        f"real images lie in {tmp_path}/data; to train with them: ./run_all.sh --profile quick --rows cifar10",
    ):
        assert text in told


def test_on_a_terminal_a_line_for_each_notebook_and_a_bar(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    jobs = planned("--only", "3,7")
    jobs[0].state, jobs[0].seconds = "done", 9.0
    with run_show.ProgressBlock(jobs, tmp_path) as block:
        block.show()
    last = capsys.readouterr().out.rstrip("\n").split("\n")[-3:]
    for text, line in zip(
        ("ResNet-34: done (9 s)", "hold?: waiting", "1 of 2, less than a minute left |"), last, strict=True
    ):
        assert text in line


def test_only_a_report_of_today_is_named(monkeypatch, tmp_path, capsys):
    """One left by an earlier launch is not what a launch whose comparison failed has made."""
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "report.html").touch()
    for state in ("failed", "done"):
        monkeypatch.setattr(run_all, "execute_jobs", lambda jobs, *_, s=state: [setattr(x, "state", s) for x in jobs])
        assert launch("--results-dir", tmp_path, "--only", "07") == (state == "failed")
        assert ("report.html" in capsys.readouterr().out) == (state == "done")
