"""The version of ckgrow, which belongs to the identity of every student."""

VERSION = "0.4.0"
