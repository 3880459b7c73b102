"""The front door: verifies signatures, serves the runtime operations itself, passes the rest to control.

It knows routes and nothing else: no store, no AWS service models. Everything on the way of an invocation is a
callback on one uvloop loop; tasks are for what happens rarely.
"""
