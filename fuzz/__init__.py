"""Coverage-guided fuzzing of whatever psfmatch reads from files: ``python -m fuzz TARGET --minutes 10``.

Needs Atheris (``pip install "psfmatch[test,fuzz]"``, Linux).  A target is a reader with the files it starts from
(`fuzz.targets`); what a read must end in is said in `fuzz.oracle`; `fuzz.mutate` changes FITS files card by card, and
others by their numbers and lines.  What is found is minimised (``python -m fuzz minimise TARGET FILE``) and kept in
``tests/data/fuzz``, from which ``tests/test_fuzz_corpus.py`` replays it.
"""
