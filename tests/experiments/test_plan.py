def test_the_plan_of_a_training(small_store, program):
    done = program(
        "experiments.plan", f"--store={small_store.path}", "--model=promoter_cnn", "--width=0.02",
        "--cv=chromosomes_3", "--batch_size=32", "--assays=each,all", "--runs_at_once=5",
        f"--run={small_store.path.parent}/not/yet/there",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1-assay: 18 runs of at most 100 epochs" in done.stdout
    assert "5 runs, which take turns: 5 an epoch; 13 wait" in done.stdout
    assert "1-assay: compiling, and measuring the pace" in done.stdout
    assert not {"lanes", "calls"} & set(done.stdout.split())
    assert "3-assay: 6 runs" in done.stdout
    assert "gene-steps/s" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(": enough")
