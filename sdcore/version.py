"""The version of sdcore, in one place; a picture's settings name it."""

VERSION = "0.4.0"
