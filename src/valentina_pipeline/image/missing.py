"""The one error for a model that is not at hand: nothing is ever downloaded silently."""


class MissingModel(RuntimeError):
    """A model's weights are not on this machine; the message says which, its licence and how to get it."""

    def __init__(self, model: str, licence: str, obtain: str) -> None:
        super().__init__(f"{model} is not on this machine (licence: {licence}). To get it: {obtain}")
        self.model = model
        self.licence = licence
        self.obtain = obtain
