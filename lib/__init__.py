"""Certified robustness: one sampler, one certifier, one record; every paper is a different base classifier.

The rooms, in the order of the imports: a room may import those above it.

    machine/          whole files, versions, whose code it is, progress reports     words.py   the words of parameters
    bounds/           counts -> probabilities -> radii; stopping rules, Certificate; SciPy, no torch
    sampling/         Noise objects, keyed streams, class counts: the only hot loop
    smoothing.py      g: PREDICT and CERTIFY
    datasets/         digits, CIFAR-10, ImageNet, folders; what images are, as a hash
    records/          the certification log: write, resume, probe, read ours and the papers', recount
    models/           f and D: classifiers, denoisers, diffusion, files, how f is computed, what f is as a hash
    certification.py  a data set -> a record, here or on a cluster (cluster.py)
    apis/             a service that one can only query as f: budget, log, replay, a local server
    attacks/          pgd, ddn, their losses   training/   one loop, a recipe, an objective a method
    config/           the parameters of notebooks, profiles
    methods/          from parameters to weights and records, a file a paper
    captions.py  tables.py  figures/  sketches.py  exercises/   what notebooks show and ask
    runner/           notebooks as jobs, sweeps; their command lines: run.py, sweep.py, lab.py
    talk/             slides from a team's records   site.py   all of it as one offline site
"""
