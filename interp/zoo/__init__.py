"""The models that come with the package, and tasks with known answers."""

from interp.zoo.mixture import every_task
from interp.zoo.tasks import TASKS, Pair, Task, task

DEFAULT_PAIR = Pair(
    clean="When Mary and John went to the store, John gave a drink to",
    corrupt="When Mary and John went to the store, Mary gave a drink to",
    answer=" Mary",
    wrong=" John",
)
"""The prompt pair that demonstrations use: indirect object identification (Wang et al. 2022)."""

__all__ = ["DEFAULT_PAIR", "TASKS", "Pair", "Task", "every_task", "task"]
