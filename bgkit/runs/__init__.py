"""Runs: what determines one, its folder, and what is kept on disk."""

from bgkit.runs.config import TrainConfig as TrainConfig
from bgkit.runs.config import config_hash as config_hash
from bgkit.runs.config import differences as differences
from bgkit.runs.config import file_name as file_name
from bgkit.runs.config import is_object as is_object
from bgkit.runs.config import label as label
from bgkit.runs.config import make_config as make_config
from bgkit.runs.config import read_config as read_config
from bgkit.runs.folders import METHOD as METHOD
from bgkit.runs.folders import Run as Run
from bgkit.runs.folders import find_run as find_run
from bgkit.runs.folders import folder_of as folder_of
from bgkit.runs.folders import git_revision as git_revision
from bgkit.runs.folders import load_run as load_run
from bgkit.runs.folders import open_run as open_run
from bgkit.runs.folders import write_atomically as write_atomically
from bgkit.runs.folders import write_json as write_json
from bgkit.runs.folders import write_parquet as write_parquet
