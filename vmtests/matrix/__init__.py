# SPDX-License-Identifier: Apache-2.0
"""The host's half of the kernel matrix: get kernels, boot them, judge what their rows leave behind."""


class Unusable(Exception):
    """The matrix cannot run here, or a row cannot be run at all. The message says what to do."""
