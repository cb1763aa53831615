"""The bundled trainer: a decoder with a mixture of experts in every layer, and the loop that trains it.

PyTorch's own parts, readable in one sitting: `config.py` (the shape and its arithmetic); `attention.py`, `router.py`
and `experts.py` (the parts of a layer); `model.py` (the decoder); `loss.py`. torch is imported only here and in
`trainer_bridge/torch_data.py`.
"""
