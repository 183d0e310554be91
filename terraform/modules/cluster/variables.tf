variable "name" {
  description = "Name of the cluster, and the prefix of everything that belongs to it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "A name is 2 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "kubernetes_version" {
  description = "Kubernetes version of the control plane, the nodes and the add-ons. Raise it one minor version at a time."
  type        = string
  default     = "1.35"
  nullable    = false

  validation {
    condition     = can(regex("^1\\.(3[1-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "A minor version from 1.31, the oldest that the chart runs on, such as 1.35."
  }
}

variable "subnet_ids" {
  description = "Private subnets for the nodes and the control plane's interfaces, in at least two zones, with a way out to the internet."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(distinct(var.subnet_ids)) >= 2
    error_message = "EKS needs subnets in at least two zones."
  }
}

variable "admin_arns" {
  description = "IAM roles and users that administer the cluster. Nobody else gets in, not even whoever creates it."
  type        = set(string)
  nullable    = false

  validation {
    condition     = length(var.admin_arns) > 0
    error_message = "Without an administrator nobody could deploy to the cluster."
  }

  validation {
    condition     = alltrue([for arn in var.admin_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/[0-9A-Za-z_+=,.@/-]+$", arn))])
    error_message = "Each is the ARN of an IAM role or user, such as arn:aws:iam::123456789012:role/admin. For an assumed role name the role, not the session."
  }
}

variable "api_cidrs" {
  description = "IPv4 ranges that reach the Kubernetes API from the internet. None: it is reachable from the VPC alone."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : try("${cidrhost(cidr, 0)}/${split("/", cidr)[1]}", "") == cidr && !strcontains(cidr, ":")])
    error_message = "Each is an IPv4 range written from its first address, such as 203.0.113.0/24."
  }

  validation {
    condition     = alltrue([for cidr in var.api_cidrs : try(tonumber(split("/", cidr)[1]) >= 8, false)])
    error_message = "A range wider than /8 limits nothing."
  }
}

variable "node_instance_types" {
  description = "Instance types of the nodes, all of one architecture and of about the same size."
  type        = list(string)
  default     = ["t3.medium"]
  nullable    = false

  validation {
    condition     = length(var.node_instance_types) > 0 && alltrue([for type in var.node_instance_types : can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", type))])
    error_message = "At least one instance type, such as t3.medium."
  }
}

variable "node_architecture" {
  description = "Architecture of the instance types: amd64 or arm64."
  type        = string
  default     = "amd64"
  nullable    = false

  validation {
    condition     = contains(["amd64", "arm64"], var.node_architecture)
    error_message = "amd64 or arm64."
  }
}

variable "node_count" {
  description = "How few and how many nodes there are. The cluster starts with the fewest; an autoscaler may move it in between."
  type = object({
    min = number
    max = number
  })
  default  = { min = 2, max = 6 }
  nullable = false

  validation {
    condition     = var.node_count.min >= 1 && var.node_count.max <= 450 && var.node_count.min <= var.node_count.max && floor(var.node_count.min) == var.node_count.min && floor(var.node_count.max) == var.node_count.max
    error_message = "Whole numbers, 1 <= min <= max <= 450 (the limit of a managed node group)."
  }
}

variable "node_disk_gib" {
  description = "Size of each node's disk, in GiB."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.node_disk_gib >= 20 && var.node_disk_gib <= 1000 && floor(var.node_disk_gib) == var.node_disk_gib
    error_message = "A whole number from 20, the size of the node image, to 1000."
  }
}

variable "log_retention_days" {
  description = "How long the control plane's logs are kept, in days; one of the periods that CloudWatch Logs offers."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch Logs keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653 days."
  }
}
