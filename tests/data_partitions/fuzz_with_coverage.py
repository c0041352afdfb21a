"""The coverage-guided fuzzer over one reader: python fuzz_with_coverage.py READER [libFuzzer options]"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["data_partitions", "pydicom"], enable_loader_override=False):
    from fuzzing import READERS, survives


def main() -> None:
    reader = READERS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(reader.seeds()):
            (corpus / str(number)).write_bytes(seed)
        path = Path(folder) / f"a{reader.ending}"
        atheris.Setup([*sys.argv, str(corpus)], lambda data: survives(reader, data, path))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
