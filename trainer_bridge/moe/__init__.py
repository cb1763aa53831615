"""The bundled trainer: a decoder with a mixture of experts in every layer, and the loop that trains it.

PyTorch's own parts, readable in one sitting: `config.py` (the shape and its arithmetic); `attention.py`, `router.py`
and `experts.py` (the parts of a layer); `model.py` (the decoder); `loss.py`. Then the run: `settings.py` (what a YAML
file says), `train.py` (the loop), `step.py` (one step's gradient), `optimizer.py`, `ranks.py`, `checkpoint.py`,
`evaluate.py`, and what people see of it: `run_log.py`, `alarms.py`, `panel.py`, `signals.py`, `cli.py`. torch is
imported only here and in `trainer_bridge/torch_data.py`.
"""
