from experiments.benchmarks.host import trainings


def test_the_time_of_trainings_is_parted_between_device_and_host():
    found = trainings(runs=5, genes=80, epochs=2)
    assert (found["runs"], found["chunks"]) == (5, 10)
    parts = found["device_ms_a_chunk"] + found["host_ms_a_chunk"]
    assert abs(parts * found["chunks"] / 1e3 - found["train_s"]) < 0.02
    assert 0 < found["kept_mb"] < 10
    assert found["host_share"] < 1
