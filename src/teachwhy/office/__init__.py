"""The simulated office: held in memory, one a sample, the same under the same calls."""
