"""A visitor's records taken out of every place that has them, and the models that have learnt them named.

    records.py     the server's folder, the dataset on the hub, this machine's caches of it
    workspace.py   rows, prepared data, reports, measurements; adapters and files that were trained with them
    versions.py    DVC: its cache, its run-cache and its remotes
    runs.py        MLflow: runs, what is kept beside them, the registry

What is found is noted first (pipeline/learning/forgotten.py), by digests alone; then it is deleted. So whoever is
interrupted calls again, and nothing that was found is lost.
"""
