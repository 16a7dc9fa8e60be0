"""Dataset of rights ledgers."""

from kedro.io import DatasetError

from valentina_pipeline.datasets._base import _PathDataset
from valentina_pipeline.domain.rights import InvalidLedgerError, RightsRecord
from valentina_pipeline.integrations import ledgers


class RightsLedgers(_PathDataset[None, tuple[RightsRecord, ...]]):
    """A folder of rights ledgers: loads their records; see domain/rights.py and integrations/ledgers.py."""

    def load(self) -> tuple[RightsRecord, ...]:
        """Return the records of all ledgers in the folder."""
        try:
            return ledgers.read(self._path)
        except InvalidLedgerError as err:
            raise DatasetError(str(err)) from err

    def save(self, data: None) -> None:
        """Raise DatasetError: only people and `kedro revoke` write ledgers."""
        raise DatasetError(f"{self._path} is a read-only source dataset")
