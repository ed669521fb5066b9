"""Measuring honestly: `measure` runs candidates and makes records, `compare` turns records into claims."""

from labkit.measure.candidate import Candidate
from labkit.measure.comparison import Comparison, Pair, compare
from labkit.measure.protocol import Protocol, measure
from labkit.measure.records import Measurement, Records

__all__ = ["Candidate", "Comparison", "Measurement", "Pair", "Protocol", "Records", "compare", "measure"]
