"""Builds crunch: all that an extension needs of pycoronet is the folder of its header."""

from setuptools import Extension, setup

import pycoronet

setup(
    py_modules=[],
    ext_modules=[Extension("crunch", ["crunch.c"], include_dirs=[pycoronet.get_include()])],
)
