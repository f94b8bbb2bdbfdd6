"""A Dask cluster for tests."""

import contextlib


@contextlib.contextmanager
def one_worker(workers=1, worker_gib=1.0):
    """As `data_prep.work.cluster.local`, with one worker, a thread of this process."""
    from distributed import Client, LocalCluster  # seconds, which many tests do without

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
