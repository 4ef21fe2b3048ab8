"""
Print as JSON what rl-zoo3 sets up, without driving. It runs in its own process and directory.

``python -m rl_zoo3.train`` is ``import rl_zoo3.train``, an ExperimentManager, ``setup_experiment()`` and ``learn()``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from typing import Any


def set_up(env_id: str, config: str | None = None, steps: int = 0, **options: Any) -> dict[str, Any]:
    """
    :param env_id: environment
    :param config: ``--conf-file``
    :param steps: number of steps to train
    :param options: further arguments of ``ExperimentManager``
    :return: path of the hyperparameter file, the model's class, and the environment arguments; or only the error
    """
    import rl_zoo3.train as zoo

    args = argparse.Namespace(env_kwargs=options.get("env_kwargs"))
    hyperparams = options.pop("hyperparams", {"buffer_size": 100, "n_envs": 1})
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            manager = zoo.ExperimentManager(
                args,
                "td3",
                env_id,
                "logs",
                eval_freq=-1,
                n_timesteps=10,
                config=config,
                hyperparams=hyperparams,
                **options,
            )
            model, _ = manager.setup_experiment()
        except ValueError as error:
            return {"refused": str(error)}
        if steps > 0:
            model.learn(steps)
        vector = model.env.unwrapped
        model.env.close()
    return {
        "config": manager.config,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "stock": f"{zoo.ALGOS['td3'].__module__}.{zoo.ALGOS['td3'].__qualname__}",
        "env_kwargs": manager.env_kwargs,
        "eval_env_kwargs": manager.eval_env_kwargs,
        "recorded": args.env_kwargs,
        "gamma": model.gamma,
        "vec_env": f"{type(vector).__module__}.{type(vector).__qualname__}",
        "updates": model._n_updates,
        "rates": [group["lr"] for group in model.critic.optimizer.param_groups],
    }


if __name__ == "__main__":
    print(json.dumps([set_up(**case) for case in json.loads(sys.argv[1])]))
