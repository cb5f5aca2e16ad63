"""Speed, measured side by side: ``python scripts/bench`` runs the sections, writes the report.

``bare`` and ``peer`` are the two things this suite is compared with, both written for this purpose:
a training loop without anything around it, and the recipe most published code of the field uses.
``timing`` holds the clocks, ``work`` the configurations and data, ``report`` the output; each
``section_*`` module has one function ``measure(work) -> Section``. ``gpu`` is a command of its own:
``gpu_parts`` asks for short runs, ``gpu_process`` makes them.
"""
