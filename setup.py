"""All metadata stands in setup.cfg; this file lets tools that still call setup.py work."""

from setuptools import setup

setup()
