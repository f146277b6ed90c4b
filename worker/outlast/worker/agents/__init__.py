"""Adapters: how an agent of each framework becomes a stream of emissions. The only code that knows the frameworks."""
